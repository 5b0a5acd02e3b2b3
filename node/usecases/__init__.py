"""What a node does: load state, ask the mediator, write the audit record, then act.

Gate 0 is called from `deidentify`, gate 1 from `admit_task`, gate 2 from `release_output`, and from nowhere else.
"""
