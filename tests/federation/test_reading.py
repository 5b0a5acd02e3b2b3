"""A reply's bytes, changed in every way we can think of: each is read as what it is, or malformed; nothing is raised.

Ids are made to fit after every mutation, as a site that signs its own envelope would make them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Error, Metadata, MetricRecord
from flwr.app.message import make_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from hypothesis import given, settings
from hypothesis import strategies as st

from federation import tree
from federation.arrays import read_npy, write_npy
from federation.client.hub_errors import RunOver
from federation.hub.flower.reading import read_reply, take_apart
from federation.hub.steering import Reply
from mediator.errors import Malformed
from tests.federation.pieces import ARRAY, Part, array, chunk, message, metrics, record, reply

LIMIT = 1 << 20


def read(part: Part) -> Reply:
    """The reply as the hub reads it, which foresees whatever is in it: nothing but `Malformed` is ever caught."""
    contents: dict[str, bytes] = {}
    message = part.put(contents)
    with contextlib.suppress(Malformed):
        take_apart("aachen", message, contents, LIMIT)
    return read_reply("aachen", message, contents, LIMIT)


def test_an_honest_reply_is_read() -> None:
    found = read(reply())
    assert not found.malformed and found.metrics == {"loss": 0.5, "num-examples": 10}
    assert found.tensors is not None and np.array_equal(found.tensors["w"], ARRAY)
    contents: dict[str, bytes] = {}
    reply().parts[0].put(contents)
    assert found.root == list(contents)[-1]


def test_a_refusal_is_read() -> None:
    asked = Metadata(1, "", 2, 3, "", "1", 1.0, 60.0, "train")
    said = message_to_proto(make_message(asked, error=Error(code=0, reason="paused")))
    body = ProtoMessage(metadata=said.metadata, error=said.error).SerializeToString()
    assert read(message(body=body)) == Reply("aachen", refusal="paused")
    assert read(message(record("RecordDict", metrics=metrics()), body=body)).malformed


DEEP = b"[" * 100_000
METRIC = MetricRecord({"loss": 0.5}).deflate().partition(b"\0")[2]
ODD: dict[str, Part] = {
    "rubbish instead of metrics": reply(numbers=metrics(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00")),
    "metrics cut short": reply(numbers=metrics(b"\x0a\x7f")),
    # Flower's own reader fails over it with an AttributeError
    "a metric without a value": reply(numbers=metrics(b"\x0a\x06\x0a\x04loss")),
    "a metric twice": reply(numbers=metrics(METRIC * 2)),
    "a metric that is a list": reply(numbers=metrics(MetricRecord({"loss": [0.5]}).deflate().partition(b"\0")[2])),
    "rubbish instead of a message": message(record("RecordDict", metrics=metrics()), body=b"\x0a\xff\xff\xff\xff\xff"),
    "a message with two contents": message(*[record("RecordDict", metrics=metrics(), **{n: array()}) for n in "ab"]),
    "a message without content": message(),
    "an open bracket in the header": reply(
        record("ArrayRecord", w=array(write_npy(ARRAY).replace(b"(2, 3)", b"(2, (3")))
    ),
    "an open string in the header": reply(record("ArrayRecord", w=array(write_npy(ARRAY).replace(b"'<f4'", b"'<f4 ")))),
    "a null byte in the header": reply(
        record("ArrayRecord", w=array(write_npy(ARRAY).replace(b"(2, 3)", b"(2,\x003)")))
    ),
    "another stype": reply(record("ArrayRecord", w=array(stype="pickle"))),
    "a type that is a list": reply(record("ArrayRecord", w=array(dtype=["float32"]))),
    "a type that is an object": reply(record("ArrayRecord", w=array(dtype={"float32": 1}))),
    "a side of ten to the 400": reply(record("ArrayRecord", w=array(shape=[10**400]))),
    "a negative side": reply(record("ArrayRecord", w=array(shape=[-2, 3]))),
    "sides in text": reply(record("ArrayRecord", w=array(shape="23"))),
    "one chunk a million times": reply(record("ArrayRecord", w=array(shape=[1 << 40], arraychunk_ids=[0] * 1_000_000))),
    "a chunk that is not there": reply(record("ArrayRecord", w=array(arraychunk_ids=[1]))),
    "a name with half a character": reply(record("ArrayRecord", **{"\ud800": array()})),
    "a name with a patient in it": reply(record("ArrayRecord", **{"w": array(), "John Smith": array()})),
    "metadata nested deep": reply(record("ArrayRecord", w=Part("Array", (chunk(b""),), lambda _keys: DEEP))),
    "names nested deep": reply(Part("ArrayRecord", (array(),), lambda _keys: DEEP)),
    "records that are no objects": message(Part("RecordDict", (metrics(),), lambda _keys: b"[]")),
    "a number for an id": message(Part("RecordDict", (metrics(),), lambda _keys: b'{"metrics": 1}')),
    "an id that was not brought": message(Part("RecordDict", (), lambda _keys: b'{"metrics":"%s"}' % (b"ab" * 32))),
    "an extra record": message(record("RecordDict", metrics=metrics(), cloister=metrics())),
    "a record of another kind": message(record("RecordDict", metrics=record("ArrayRecord", w=array()))),
    "a kind nobody knows": message(record("RecordDict", metrics=Part("Patient", (), lambda _keys: b""))),
    "records in records": message(record("RecordDict", metrics=record("RecordDict", metrics=metrics()))),
    "no head": message(replace(metrics(), raw=b"RecordDict")),
    "a head that is no text": message(replace(metrics(), raw=b"\xff\xfe  0\0")),
    "a length that is none": message(replace(metrics(), raw=b"RecordDict  many\0")),
    "an empty object": message(replace(metrics(), raw=b"")),
}


@pytest.mark.parametrize("odd", ODD)
def test_a_reply_of_odd_bytes_is_malformed_and_nothing_is_raised(odd: str) -> None:
    assert read(ODD[odd]).malformed


def test_bytes_that_are_not_what_their_id_says_are_malformed() -> None:
    contents: dict[str, bytes] = {}
    top = reply().put(contents)
    for key in contents:
        assert read_reply("aachen", top, contents | {key: contents[key] + b" "}, LIMIT).malformed
        assert read_reply("aachen", top, {each: contents[each] for each in contents if each != key}, LIMIT).malformed
    assert read_reply("aachen", "../etc/passwd", contents, LIMIT).malformed


def nested(parts: Part, path: list[int], change: Callable[[bytes], bytes]) -> Part:
    """The same tree with one object's bytes changed, before its id is made."""
    if path and parts.parts:
        at = path[0] % len(parts.parts)
        changed = nested(parts.parts[at], path[1:], change)
        return replace(parts, parts=(*parts.parts[:at], changed, *parts.parts[at + 1 :]))
    contents: dict[str, bytes] = {}
    return replace(parts, raw=change(contents[parts.put(contents)]))


@st.composite
def changes(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    at, more, bit = draw(st.integers(0, 400)), draw(st.binary(max_size=24)), draw(st.integers(0, 7))
    kind = draw(st.sampled_from(("flip", "cut", "insert", "replace", "repeat", "swap", "body")))

    def change(raw: bytes) -> bytes:
        here = at % (len(raw) + 1)
        body = raw.partition(b"\0")[0].rpartition(b" ")[0] + b" %d\0" % len(more) + more
        flipped = bytearray(raw)
        flipped[here % len(raw)] ^= 1 << bit
        return {
            "flip": bytes(flipped),
            "cut": raw[:here],
            "insert": raw[:here] + more + raw[here:],
            "replace": raw[:here] + more + raw[here + len(more) :],
            "repeat": raw[:here] * 2 + raw[here:],
            "swap": raw[here:] + raw[:here],
            "body": body,
        }[kind]

    return change


@settings(max_examples=500)
@given(st.lists(st.integers(0, 1), max_size=4), changes(), st.booleans())
def test_whatever_is_changed_in_a_reply_it_is_read_or_malformed(
    path: list[int], change: Callable[[bytes], bytes], trained: bool
) -> None:
    found = read(nested(reply() if trained else message(record("RecordDict", metrics=metrics())), path, change))
    if found.malformed:
        assert found == Reply("aachen", malformed=True)
    elif found.tensors is not None:  # what was read is exactly an array of ours
        for read_array in found.tensors.values():
            assert read_array.dtype == np.float32 and read_array.size <= LIMIT


@settings(max_examples=300)
@given(st.lists(st.integers(0, 1), max_size=4), changes())
def test_whatever_is_changed_in_a_hubs_message_it_is_read_or_malformed(
    path: list[int], change: Callable[[bytes], bytes]
) -> None:
    config = Part("ConfigRecord", (), lambda _keys: b"")
    asked = message(record("RecordDict", model=record("ArrayRecord", w=array()), cloister=config))
    contents: dict[str, bytes] = {}
    top = nested(asked, path, change).put(contents)

    def fetch(keys: Sequence[str]) -> list[bytes]:
        if not contents.keys() >= set(keys):
            raise RunOver("the hub has forgotten an object of this message")
        return [contents[key] for key in keys]

    with contextlib.suppress(Malformed, RunOver):
        nodes = tree.collect(top, fetch, LIMIT)
        for root in nodes[top].children:
            for key in tree.references(nodes[root]).values():
                if nodes[key].type == "ArrayRecord":
                    tree.tensors(nodes[key], nodes, LIMIT)


@settings(max_examples=300)
@given(changes(), st.sampled_from(((2, 3), (3, 2), (6,), (), (1 << 40,), (2, 3, 1, 1, 1, 1, 1, 1))))
def test_an_npy_is_the_canonical_one_or_malformed(change: Callable[[bytes], bytes], shape: tuple[int, ...]) -> None:
    raw = change(write_npy(ARRAY))
    try:
        found = read_npy(raw, "float32", shape)
    except Malformed:
        return
    assert write_npy(found) == raw
