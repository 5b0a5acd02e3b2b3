"""A job that answers like the reference job, and then takes more than it may. For the demo's closing act and for tests.

    train: config {…, "misbehave": NAME}       NAME is one of those below or in `attacks`; anything else behaves

It learns nothing: the model goes back as it came, changed in the one way that is asked for. What is here needs to know
tensors; what the standard library can do is in `attacks.py`.
"""

import json
import struct
import sys
from collections.abc import Callable

import attacks
import numpy as np
from attacks import METRICS, Task, finish
from safetensors.numpy import load, save

Behaviour = Callable[[Task, dict[str, np.ndarray]], None]


# ------------------------------------------------------------------ what gate 2 must refuse: the model


def taken_apart(whole):
    """A safetensors file as its header and the bytes behind it."""
    size = struct.unpack("<Q", whole[:8])[0]
    return json.loads(whole[8 : 8 + size]), whole[8 + size :]


def put_together(header, body):
    printed = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(printed)) + printed + body


def extra_tensor(task, weights):
    """A study's pixels under an innocent name."""
    finish(task, model=save({**weights, "head.scale": np.zeros((64, 64), np.float32)}))


def missing_tensor(task, weights):
    finish(task, model=save(dict(list(weights.items())[1:])))


def trailing_bytes(task, weights):
    """Bytes hidden behind the last tensor."""
    finish(task, model=save(weights) + b"PATIENT" * 100)


def header_gap(task, weights):
    """Bytes hidden between two tensors: offsets that leave a hole."""
    header, body = taken_apart(save(weights))
    last = max((name for name in header), key=lambda name: header[name]["data_offsets"][0])
    hole = 64
    header[last]["data_offsets"] = [offset + hole for offset in header[last]["data_offsets"]]
    start = header[last]["data_offsets"][0] - hole
    finish(task, model=put_together(header, body[:start] + b"P" * hole + body[start:]))


def header_lies(task, weights):
    """A header that promises more bytes than there are."""
    header, body = taken_apart(save(weights))
    name = next(iter(header))
    header[name]["shape"] = [1 << 40]
    header[name]["data_offsets"] = [0, 4 << 40]
    finish(task, model=put_together(header, body))


def header_too_long(task, weights):
    """A header whose own length is a lie: 2^63 bytes of it."""
    finish(task, model=struct.pack("<Q", 1 << 63) + save(weights)[8:])


def header_of_notes(task, weights):
    """One megabyte of spaces in a header that parses."""
    header, body = taken_apart(save(weights))
    finish(task, model=put_together(json.dumps(header).encode() + b" " * (1 << 20), body))


def name_twice(task, weights):
    """Two tensors of one name: whoever reads it takes the last, and the first is a letter."""
    header, body = taken_apart(save(weights))
    printed = json.dumps(header)
    name = next(iter(header))
    finish(task, model=put_together(f'{{"{name}":{json.dumps(header[name])},{printed[1:]}'.encode(), body))


def overlap(task, weights):
    """Two tensors over the same bytes, and bytes that no tensor names."""
    header, body = taken_apart(save(weights))
    for entry in header.values():
        size = entry["data_offsets"][1] - entry["data_offsets"][0]
        entry["data_offsets"] = [0, size]
    finish(task, model=put_together(header, body))


def payload_in_nan(task, weights):
    """One NaN among numbers, with a patient's number in its payload."""
    changed = {name: array.copy() for name, array in weights.items()}
    first = next(array for array in changed.values() if array.dtype.kind == "f")
    first.reshape(-1).view(np.uint32)[0] = 0x7FC00000 | 17
    finish(task, model=save(changed))


def negative_zeros(task, weights):
    """A bit in each zero's sign. Released, but every zero is positive."""
    finish(task, model=save({name: np.full_like(array, -0.0) for name, array in weights.items()}))


def metadata(task, weights):
    finish(task, model=save(weights, metadata={"note": "text that no permit names"}))


def wrong_dtype(task, weights):
    finish(task, model=save({name: array.astype(np.float64) for name, array in weights.items()}))


def wrong_shape(task, weights):
    finish(task, model=save({name: array.reshape(-1) for name, array in weights.items()}))


def not_a_number(task, weights):
    """Payload bits in NaN: 22 of them in each value."""
    finish(task, model=save({name: np.full_like(array, np.nan) for name, array in weights.items()}))


def denormals(task, weights):
    """Bits in numbers too small to change the model. Released, but flushed to zero."""
    finish(task, model=save({name: np.full_like(array, 1e-42) for name, array in weights.items()}))


def huge_update(task, weights):
    """Released, but clipped to the permit's norm."""
    floats = {name: array for name, array in weights.items() if array.dtype.kind == "f"}
    finish(task, model=save({**weights, **{name: array + np.float32(1e6) for name, array in floats.items()}}))


# ------------------------------------------------------------------ the metrics


def long_metric(task, weights):
    finish(task, json.dumps({**METRICS, "loss": 0.123456789012345}))


def extra_metric(task, weights):
    finish(task, json.dumps({**METRICS, "patient-17": 1.0}))


def text_metric(task, weights):
    finish(task, json.dumps({**METRICS, "loss": "text"}))


def not_a_number_metric(task, weights):
    finish(task, '{"loss": NaN, "num-examples": 64}')


def metric_twice(task, weights):
    finish(task, '{"loss": 0.17, "loss": 0.5, "num-examples": 64}')


def whole_metric(task, weights):
    """A thousand digits in a whole number."""
    finish(task, '{"loss": 0.5, "num-examples": ' + "17" * 500 + "}")


def text_in_metrics(task, weights):
    """A letter behind the object."""
    finish(task, json.dumps(METRICS) + ' {"patient": 17}')


def nested_metric(task, weights):
    finish(task, json.dumps({**METRICS, "loss": {"patient": 17}}))


def large_metrics(task, weights):
    finish(task, json.dumps(METRICS) + " " * 100_000)


def deep_metrics(task, weights):
    finish(task, "[" * 50_000)


BEHAVIOURS: dict[str, Behaviour] = {
    behave.__name__.replace("_", "-"): behave
    for behave in (
        extra_tensor, missing_tensor, trailing_bytes, header_gap, header_lies, header_too_long, header_of_notes,
        name_twice, overlap, metadata, wrong_dtype, wrong_shape, not_a_number, payload_in_nan, denormals,
        negative_zeros, huge_update, long_metric, extra_metric, text_metric, not_a_number_metric, metric_twice,
        whole_metric, text_in_metrics, nested_metric, large_metrics, deep_metrics,
    )
}  # fmt: skip


def main() -> None:
    for task in attacks.tasks():
        name = str(task.config.get("misbehave", ""))
        if task.kind == "train" and name in BEHAVIOURS:
            BEHAVIOURS[name](task, dict(load(task.model)))
        else:
            attacks.behave(task)


if __name__ == "__main__":
    sys.exit(main())
