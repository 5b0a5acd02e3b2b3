"""A hospital node: loads state, asks the mediator, writes the audit record, then acts."""
