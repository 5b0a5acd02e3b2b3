"""Canonical Flower objects out of released values: what core signs object by object, and the link may push.

Runs in core's process, never in the link's: if the link hashed and then checked its own hashes, nothing would be
checked. Core knows no network library, so Flower's own classes stay out (177 modules, an HTTP client among them):
an object is a head, a zero byte and a body, and the bodies are JSON, raw chunks and one protobuf. Flower itself is
what the tests compare with.

Children stand before their parents, so that the order of the mapping is the order of pushing.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping

from federation.arrays import Array, Tensors, write_npy
from mediator.sizes import CHUNK_BYTES
from mediator.types import Kind, ReleasedObject

# The names of the records in every message, both ways.
MODEL_RECORD = "model"
METRICS_RECORD = "metrics"

# flwr/proto/recorddict.proto: MetricRecord.items = 1, Item.key = 1, Item.value = 2, MetricRecordValue.double = 1 and
# .sint64 = 2; a protobuf tag is the field's number × 8 + its wire type (0 varint, 1 eight bytes, 2 length and bytes)
_ITEMS, _KEY, _VALUE, _DOUBLE, _SINT64 = 0x0A, 0x0A, 0x12, 0x09, 0x10


class FlowerCodec:
    """`mediator.ports.UpdateCodec` with Flower's own object format (flwr 1.42)."""

    def encode(
        self, task: Kind, tensors: Tensors, metrics: Mapping[str, float | int]
    ) -> tuple[str, Mapping[str, bytes]]:
        """The RecordDict's object id and every object's bytes by id, children first.

        A training reply holds `model` and `metrics`, an evaluation reply `metrics` alone. Tensors stand in the order
        they come in, the permit's: Flower's strategies and apps read a model as a list, too. Metrics are read by name
        alone and sorted.
        """
        objects = _Objects()
        records: dict[str, str] = {}
        if task is Kind.TRAIN:
            arrays = {name: objects.array(tensor) for name, tensor in tensors.items()}
            records[MODEL_RECORD] = objects.add("ArrayRecord", arrays.values(), _json(arrays))
        numbers = {name: metrics[name] for name in sorted(metrics)}
        records[METRICS_RECORD] = objects.add("MetricRecord", (), metric_record(numbers))
        root = objects.add("RecordDict", records.values(), _json(records))
        return root, objects.by_id

    def listing(self, objects: Mapping[str, bytes]) -> tuple[ReleasedObject, ...]:
        """Ids and sizes in pushing order."""
        return tuple(ReleasedObject(key, len(content)) for key, content in objects.items())


class _Objects:
    """The objects of one reply, in the order they were added. Equal content is one object with one id."""

    def __init__(self) -> None:
        self.by_id: dict[str, bytes] = {}

    def add(self, kind: str, children: Iterable[str], body: bytes | memoryview) -> str:
        """The id of an object: the SHA-256 of `Type child,child… bodylength`, a zero byte, and the body."""
        head = f"{kind} {','.join(dict.fromkeys(children))} {len(body)}"
        content = b"".join((head.encode("ascii"), b"\0", body))
        key = hashlib.sha256(content).hexdigest()
        self.by_id.setdefault(key, content)
        return key

    def array(self, array: Array) -> str:
        raw = memoryview(write_npy(array))
        parts = [self.add("ArrayChunk", (), raw[at : at + CHUNK_BYTES]) for at in range(0, len(raw), CHUNK_BYTES)]
        distinct = {key: index for index, key in enumerate(dict.fromkeys(parts))}
        metadata = {
            "dtype": array.dtype.name,
            "shape": array.shape,
            "stype": "numpy.ndarray",
            "arraychunk_ids": [distinct[key] for key in parts],
        }
        return self.add("Array", parts, _json(metadata))


def metric_record(metrics: Mapping[str, float | int]) -> bytes:
    """The protobuf body of a MetricRecord: a float as `double`, a whole number (up to 63 bits and sign) as `sint64`.

    Raises `OverflowError` for a larger one.
    """
    return b"".join(_field(_ITEMS, _field(_KEY, name.encode("utf-8")) + _field(_VALUE, _number(value)))
                    for name, value in metrics.items())  # fmt: skip


def _number(value: float | int) -> bytes:
    if isinstance(value, float):
        return bytes([_DOUBLE]) + struct.pack("<d", value)
    if not -(1 << 63) <= value < 1 << 63:
        raise OverflowError("a whole number beyond 64 bits")
    return bytes([_SINT64]) + _varint(2 * value if value >= 0 else -2 * value - 1)


def _field(tag: int, content: bytes) -> bytes:
    return bytes([tag]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _json(plain: object) -> bytes:
    """As `json.dumps` prints it, spaces and all: what Flower hashes."""
    return json.dumps(plain).encode("ascii")
