"""The codec in core's process, and the link's reading of what a hub sends: one format, written once, read strictly."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, validate_object_content
from hypothesis import given, settings
from hypothesis import strategies as st

from federation import tree
from federation.arrays import DTYPES, read_npy, write_npy
from federation.client.objects import FlowerCodec, metric_record
from federation.hub.flower.grid import to_record, to_tensors
from mediator.errors import Malformed
from mediator.ports import UpdateCodec
from mediator.types import Kind
from tests.federation.ground import model
from tests.sim.zoo import ZOO, Model, models, same

CODEC: UpdateCodec = FlowerCodec()
METRICS = {"loss": 0.25, "num-examples": 12}
LIMIT = 1 << 22


def test_the_objects_are_flowers_and_name_themselves() -> None:
    root, objects = CODEC.encode(Kind.TRAIN, model(1.5), METRICS)
    for key, content in objects.items():
        assert hashlib.sha256(content).hexdigest() == key
        validate_object_content(content)
    records = inflate_object_from_contents(root, dict(objects))
    assert isinstance(records, RecordDict) and list(records) == ["model", "metrics"]
    read = to_tensors(records.array_records["model"])
    assert all(np.array_equal(read[name], array) for name, array in model(1.5).items())
    assert dict(records.metric_records["metrics"]) == METRICS


def flowers(task: Kind, tensors: Mapping[str, np.ndarray], metrics: Mapping[str, float]) -> tuple[str, list]:
    """What Flower's own classes make of the same values: the root's id, and (id, bytes) in pushing order."""
    records = RecordDict()
    if task is Kind.TRAIN:
        made = {
            name: Array(dtype=a.dtype.name, shape=a.shape, stype="numpy.ndarray", data=write_npy(a))
            for name, a in tensors.items()
        }
        records["model"] = ArrayRecord(made)
    records["metrics"] = MetricRecord(dict(sorted(metrics.items())))
    return records.object_id, [(key, one.deflate()) for key, one in get_all_nested_objects(records).items()]


NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,20}", fullmatch=True)
NUMBERS = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**63), 2**63 - 1))
ARRAYS = st.builds(
    lambda dtype, shape, seed: np.asarray(np.random.default_rng(seed).integers(-2, 2, shape)).astype(DTYPES[dtype]),
    st.sampled_from(sorted(DTYPES)), st.lists(st.integers(1, 3), max_size=4), st.integers(0, 9),
)  # fmt: skip


@given(st.sampled_from([Kind.TRAIN, Kind.EVALUATE]), st.dictionaries(NAMES, ARRAYS), st.dictionaries(NAMES, NUMBERS))
def test_every_object_is_flowers_own_to_the_byte(
    task: Kind, tensors: dict[str, np.ndarray], metrics: dict[str, float]
) -> None:
    root, objects = CODEC.encode(task, tensors, metrics)
    assert (root, list(objects.items())) == flowers(task, tensors, metrics)


def test_chunks_that_are_alike_are_one_object_as_in_flower() -> None:
    alike = {"w": np.zeros(4_000_000, dtype=np.float32), "v": np.zeros(4_000_000, dtype=np.float32)}
    root, objects = CODEC.encode(Kind.TRAIN, alike, METRICS)
    assert (root, list(objects.items())) == flowers(Kind.TRAIN, alike, METRICS)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_a_number_that_has_no_64_bits_is_not_written_as_another(number: int) -> None:
    with pytest.raises(OverflowError):
        metric_record({"n": number})


def test_children_stand_before_parents() -> None:
    root, objects = CODEC.encode(Kind.TRAIN, model(), METRICS)
    seen: set[str] = set()
    for key, content in objects.items():
        assert set(tree.split(content).children) <= seen
        seen.add(key)
    assert list(objects)[-1] == root
    assert [(entry.id, entry.size_bytes) for entry in CODEC.listing(objects)] == [
        (key, len(content)) for key, content in objects.items()
    ]


def test_equal_values_in_equal_order_give_equal_ids() -> None:
    """The order of tensors is the model's, that of metrics nobody's."""
    forward, backward = model(2.0), dict(reversed(model(2.0).items()))
    first, _ = CODEC.encode(Kind.TRAIN, forward, METRICS)
    assert first == CODEC.encode(Kind.TRAIN, model(2.0), dict(reversed(METRICS.items())))[0]
    assert first != CODEC.encode(Kind.TRAIN, backward, METRICS)[0]
    assert first != CODEC.encode(Kind.TRAIN, forward, METRICS | {"loss": 0.26})[0]


@settings(max_examples=60, deadline=None)
@given(models())
def test_a_model_keeps_its_order_whichever_way_it_goes(found: Model) -> None:
    """From gate 2 into objects and out of them at the hub; from the hub into objects and out of them at the link."""
    root, objects = CODEC.encode(Kind.TRAIN, found, METRICS)
    records = inflate_object_from_contents(root, dict(objects))
    assert isinstance(records, RecordDict) and same(to_tensors(records.array_records["model"]), found)
    assert same(to_tensors(to_record(found)), found)
    assert same(read(*instruction(found)), found)


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_keeps_its_order_whichever_way_it_goes(name: str) -> None:
    root, objects = CODEC.encode(Kind.TRAIN, ZOO[name](), METRICS)
    records = inflate_object_from_contents(root, dict(objects))
    assert isinstance(records, RecordDict) and same(to_tensors(records.array_records["model"]), ZOO[name]())
    assert same(read(*instruction(ZOO[name]())), ZOO[name]())


def test_an_evaluation_carries_no_model() -> None:
    root, objects = CODEC.encode(Kind.EVALUATE, model(), METRICS)
    records = inflate_object_from_contents(root, dict(objects))
    assert isinstance(records, RecordDict) and list(records) == ["metrics"]


@given(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(1, 5), max_size=4), st.integers(0, 2**32 - 1))
def test_what_is_written_is_read(dtype: str, shape: list[int], seed: int) -> None:
    array = np.random.default_rng(seed).integers(-9, 9, size=shape).astype(DTYPES[dtype])
    raw = write_npy(np.asarray(array))
    assert np.array_equal(read_npy(raw, dtype, tuple(shape)), array)
    for bad in (raw + b"\0", raw[:-1], raw[:20] + b"\0" + raw[20:]):
        with pytest.raises(Malformed):
            read_npy(bad, dtype, tuple(shape))


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.replace(b"'fortran_order': False", b"'fortran_order': True "),
        lambda raw: raw.replace(b"<f4", b">f4"),
        lambda raw: raw.replace(b"<f4", b"|O "),
        lambda raw: raw.replace(b"(2, 3)", b"(3, 2)"),
        lambda raw: raw.replace(b"}  ", b"} x"),
        lambda raw: b"\x93NUMPY\x02" + raw[7:],
        lambda raw: b"",
    ],
)
def test_an_npy_that_is_not_canonical_is_refused(change: Callable[[bytes], bytes]) -> None:
    raw = write_npy(np.ones((2, 3), dtype=np.float32))
    changed = change(raw)
    assert changed != raw
    with pytest.raises(Malformed):
        read_npy(changed, "float32", (2, 3))


# --- the link's reading ---------------------------------------------------------------------------------------


class Store:
    """Objects by id, fetched as the link fetches them."""

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        self.objects = dict(objects)
        self.fetched: list[str] = []

    def __call__(self, keys: Sequence[str]) -> list[bytes]:
        self.fetched += keys
        return [self.objects[key] for key in keys]

    def add(self, kind: str, children: Sequence[str], body: bytes) -> str:
        content = f"{kind} {','.join(children)} {len(body)}".encode() + b"\0" + body
        key = hashlib.sha256(content).hexdigest()
        self.objects[key] = content
        return key

    def message(self, root: str) -> str:
        return self.add("Message", [root], b"")


def instruction(arrays: Mapping[str, np.ndarray]) -> tuple[Store, str]:
    records = RecordDict({"model": to_record(arrays), "cloister": ConfigRecord({"instruction": "x"})})
    store = Store({key: nested.deflate() for key, nested in get_all_nested_objects(records).items()})
    return store, store.message(records.object_id)


def read(store: Store, root: str, limit: int = LIMIT) -> dict[str, np.ndarray]:
    nodes = tree.collect(root, store, limit)
    records = tree.references(nodes[nodes[root].children[0]])
    return tree.tensors(nodes[records["model"]], nodes, limit)


def test_an_instructions_model_is_read() -> None:
    store, root = instruction(model(3.0))
    found = read(store, root)
    assert all(np.array_equal(found[name], array) for name, array in model(3.0).items())


def test_a_tensor_of_many_chunks_is_read() -> None:
    big = {"w": np.arange(3_000_000, dtype=np.float32)}
    store, root = instruction(big)
    assert np.array_equal(read(store, root, 1 << 24)["w"], big["w"])


def test_an_object_with_other_bytes_than_its_id_says_is_refused() -> None:
    store, root = instruction(model())
    for key in list(store.objects):
        changed = Store(store.objects)
        changed.objects[key] = changed.objects[key][:-1] + b"!"
        with pytest.raises(Malformed):
            read(changed, root)


def test_an_instruction_over_the_limit_is_refused_while_it_comes() -> None:
    store, root = instruction({"w": np.zeros(6 << 20, dtype=np.float32) + np.arange(6 << 20, dtype=np.float32)})
    with pytest.raises(Malformed, match="larger"):
        read(store, root, 1024)


def test_one_chunk_named_a_million_times_is_not_joined() -> None:
    """5 MiB that would unfold to 5 TiB."""
    store = Store({})
    chunk = store.add("ArrayChunk", [], b"\0" * (5 << 20))
    metadata = {
        "dtype": "float32",
        "shape": [1 << 30, 1 << 10],
        "stype": "numpy.ndarray",
        "arraychunk_ids": [0] * 10**6,
    }
    array = store.add("Array", [chunk], json.dumps(metadata).encode())
    record = store.add("ArrayRecord", [array], json.dumps({"w": array}).encode())
    top = store.add("RecordDict", [record], json.dumps({"model": record}).encode())
    with pytest.raises(Malformed, match="larger"):
        read(store, store.message(top), 1 << 26)


@pytest.mark.parametrize(
    "metadata",
    [
        {"dtype": "float32", "shape": [3], "stype": "numpy.ndarray"},
        {"dtype": "float32", "shape": [3], "stype": "numpy.ndarray", "arraychunk_ids": [0], "note": "hello"},
        {"dtype": "object", "shape": [3], "stype": "numpy.ndarray", "arraychunk_ids": [0]},
        {"dtype": ["float32"], "shape": [3], "stype": "numpy.ndarray", "arraychunk_ids": [0]},
        {"dtype": {"float32": 1}, "shape": [3], "stype": "numpy.ndarray", "arraychunk_ids": [0]},
        {"dtype": "float32", "shape": [10**400], "stype": "numpy.ndarray", "arraychunk_ids": [0]},
        {"dtype": "float32", "shape": [3], "stype": "pickle", "arraychunk_ids": [0]},
        {"dtype": "float32", "shape": [-3], "stype": "numpy.ndarray", "arraychunk_ids": [0]},
        {"dtype": "float32", "shape": [True], "stype": "numpy.ndarray", "arraychunk_ids": [0]},
        {"dtype": "float32", "shape": [3], "stype": "numpy.ndarray", "arraychunk_ids": [1]},
        {"dtype": "float32", "shape": [3], "stype": "numpy.ndarray", "arraychunk_ids": []},
        {"dtype": "float32", "shape": [4], "stype": "numpy.ndarray", "arraychunk_ids": [0]},
        ["not", "an", "object"],
    ],
)
def test_an_array_that_says_other_than_it_holds_is_refused(metadata: object) -> None:
    store = Store({})
    chunk = store.add("ArrayChunk", [], write_npy(np.zeros(3, dtype=np.float32)))
    array = store.add("Array", [chunk], json.dumps(metadata).encode())
    record = store.add("ArrayRecord", [array], json.dumps({"w": array}).encode())
    top = store.add("RecordDict", [record], json.dumps({"model": record}).encode())
    with pytest.raises(Malformed):
        read(store, store.message(top))


def test_an_object_where_it_has_no_place_is_refused() -> None:
    store = Store({})
    metrics = store.add("MetricRecord", [], b"")
    top = store.add("RecordDict", [metrics], json.dumps({"model": metrics}).encode())
    with pytest.raises(Malformed, match="no place"):
        read(store, store.message(top))
    nested = store.add("RecordDict", [top], json.dumps({"model": top}).encode())
    with pytest.raises(Malformed, match="no place"):
        read(store, store.message(nested))


@pytest.mark.parametrize(
    "head", [b"Message", b"Message  x", b"Message  1", b"Message zz 0", b"M\xff  0", b"Message  00"]
)
def test_an_object_without_a_proper_head_is_refused(head: bytes) -> None:
    with pytest.raises(Malformed):
        tree.split(head + b"\0")


def test_a_record_names_its_parts_and_nothing_else() -> None:
    key = "ab" * 32
    for body in (b"{}", b"[]", json.dumps({"a": key, "b": "cd" * 32}).encode(), b"{", json.dumps({"a": 3}).encode()):
        with pytest.raises(Malformed):
            tree.references(tree.TreeNode("RecordDict", (key,), body))


@pytest.mark.parametrize("name", ["", "\ud800", "John Smith", "w\n", "a" * 129, "naïve"])
def test_a_part_has_a_permitted_name(name: str) -> None:
    key = "ab" * 32
    with pytest.raises(Malformed):
        tree.references(tree.TreeNode("ArrayRecord", (key,), json.dumps({name: key}).encode()))


def test_flowers_record_of_a_scalar_survives() -> None:
    record = to_record({"s": np.array(math.pi)})
    assert isinstance(record, ArrayRecord) and float(to_tensors(record)["s"]) == math.pi
