"""Gate 0: what becomes of each DICOM element, each instance, each clinical value.

`tables` reads the standard's facts, `profile` compiles a hospital's TOML file to one rule per element, `values` applies
a rule to a value, `pseudonyms` and `dates` say what replaces an identifier, `screening` whether an instance may pass at
all, `residual` what must not be found in what was written. Everything no rule names is removed.
"""
