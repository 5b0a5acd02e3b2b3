"""The DICOM side of gate 0: reads files nobody trusts, applies a compiled table, checks what it wrote."""
