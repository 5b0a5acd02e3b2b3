"""Gate 2: may this output leave? `decide` answers; `tensors`, `clip`, `noise` and `metrics` are what it asks."""
