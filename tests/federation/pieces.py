"""Flower's objects put together by hand, so that a test can put anything in any of them; ids are made to fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Metadata, MetricRecord, RecordDict
from flwr.app.message import make_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage

from federation.arrays import write_npy

ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


@dataclass(frozen=True)
class Part:
    """One object to be: its kind, its parts, and its body out of the parts' ids; `raw` stands in for all of it."""

    kind: str
    parts: tuple[Part, ...]
    body: Callable[[list[str]], bytes]
    raw: bytes | None = None

    def put(self, contents: dict[str, bytes]) -> str:
        keys = [part.put(contents) for part in self.parts]
        body = self.body(keys)
        unique = ",".join(dict.fromkeys(keys))
        content = f"{self.kind} {unique} {len(body)}".encode() + b"\0" + body if self.raw is None else self.raw
        key = hashlib.sha256(content).hexdigest()
        contents[key] = content
        return key


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def chunk(npy: bytes) -> Part:
    return Part("ArrayChunk", (), lambda _keys: npy)


def array(npy: bytes = write_npy(ARRAY), **changes: Any) -> Part:
    metadata = {"dtype": "float32", "shape": [2, 3], "stype": "numpy.ndarray", "arraychunk_ids": [0]} | changes
    return Part("Array", (chunk(npy),), lambda _keys: _json(metadata))


def record(kind: str, **parts: Part) -> Part:
    return Part(kind, tuple(parts.values()), lambda keys: _json(dict(zip(parts, keys, strict=True))))


def metrics(body: bytes | None = None) -> Part:
    honest = MetricRecord({"loss": 0.5, "num-examples": 10}).deflate().partition(b"\0")[2]
    return Part("MetricRecord", (), lambda _keys: honest if body is None else body)


def message(*records: Part, body: bytes | None = None) -> Part:
    metadata = Metadata(1, "", 2, 3, "", "1", 1.0, 60.0, "train")
    honest = ProtoMessage(metadata=message_to_proto(make_message(metadata, RecordDict())).metadata).SerializeToString()
    return Part("Message", records, lambda _keys: honest if body is None else body)


def reply(model: Part | None = None, numbers: Part | None = None) -> Part:
    model = record("ArrayRecord", w=array()) if model is None else model
    return message(record("RecordDict", model=model, metrics=numbers or metrics()))
