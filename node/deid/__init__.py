"""Gate 0 whole: reads files nobody trusts, applies a compiled table, checks what it wrote.

`pipeline` has the ports (source, workers, sink), `processes` the workers, `deidentify` the gate itself.
"""
