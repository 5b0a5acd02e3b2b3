"""The mediator: it decides and never does.

Three gates stand in this package, strangers to each other on one ground: gate 0 (`deid`), gate 1 (`admission`) and
gate 2 (`release` for models and metrics, `airlock` for an analysis's tables).
Nothing here opens a file, reads a clock or draws a random number: values and `now` go in, a verdict comes
out.
"""
