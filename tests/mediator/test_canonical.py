from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediator import canonical
from mediator.errors import Malformed, UnsupportedVersion
from mediator.grammar import MAX_INTEGER


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Leaf:
    name: str
    weight: float | None


@dataclass(frozen=True)
class Tree:
    KIND: ClassVar[str] = "test.tree"
    VERSION: ClassVar[int] = 3

    planted: datetime
    rings: int
    height: float
    alive: bool
    colour: Colour
    shape: Literal["round", "flat"]
    leaves: tuple[Leaf, ...]
    marks: Mapping[str, Any]


finite = st.floats(allow_nan=False, allow_infinity=False)
integers = st.integers(-MAX_INTEGER, MAX_INTEGER)
text = st.text(st.characters(exclude_categories=["Cs"]))
times = st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1)).map(
    lambda t: t.replace(tzinfo=UTC)
)
leaves = st.builds(Leaf, text, st.none() | finite)
trees = st.builds(
    Tree,
    times,
    integers,
    finite,
    st.booleans(),
    st.sampled_from(Colour),
    st.sampled_from(["round", "flat"]),
    st.lists(leaves, max_size=4).map(tuple),
    st.dictionaries(text, st.none() | st.booleans() | integers | finite | text, max_size=4),
)

TREE = Tree(datetime(2026, 1, 2, tzinfo=UTC), 3, 1.5, True, Colour.RED, "flat", (Leaf("a", None),), {"x": 1})
RAW = (
    b'{"alive":true,"colour":"red","height":1.5,"kind":"test.tree","leaves":[{"name":"a","weight":null}],'
    b'"marks":{"x":1},"planted":"2026-01-02T00:00:00Z","rings":3,"shape":"flat","version":3}'
)


@given(trees)
def test_decoding_an_encoded_document_gives_it_back(tree: Tree) -> None:
    raw = canonical.encode(tree)
    assert canonical.decode(Tree, raw) == tree
    assert canonical.encode(canonical.decode(Tree, raw)) == raw


@given(trees, st.data())
def test_a_changed_byte_is_refused_or_is_another_document(tree: Tree, data: st.DataObject) -> None:
    raw = bytearray(canonical.encode(tree))
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] ^= data.draw(st.integers(1, 255))
    try:
        decoded = canonical.decode(Tree, bytes(raw))
    except Malformed:
        return
    assert canonical.encode(decoded) == bytes(raw)


def test_the_form_is_the_one_written_down() -> None:
    assert canonical.encode(TREE) == RAW
    assert canonical.decode(Tree, RAW) == TREE


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"rings":3', b'"rings":3.0'),
        (b'"rings":3', b'"rings":3e0'),
        (b'"rings":3', b'"rings":true'),
        (b'"rings":3', b'"rings":"3"'),
        (b'"rings":3', b'"rings":null'),
        (b'"rings":3', b'"rings":9007199254740993'),
        (b'"rings":3', b'"rings":9007199254740992'),
        (b'"rings":3', b'"rings":' + b"9" * 5000),
        (b'"rings":3', b'"rings":3,"rings":3'),
        (b'"rings":3', b'"rings":-0'),
        (b'"height":1.5', b'"height":1.50'),
        (b'"height":1.5', b'"height":NaN'),
        (b'"height":1.5', b'"height":1e999'),
        (b'"height":1.5', b'"height":-0.0'),
        (b'"alive":true', b'"alive":1'),
        (b'"colour":"red"', b'"colour":"green"'),
        (b'"colour":"red"', b'"colour":[]'),
        (b'"shape":"flat"', b'"shape":"square"'),
        (b'"name":"a"', b'"name":"a","other":1'),
        (b'"name":"a",', b""),
        (b'{"name":"a","weight":null}', b"7"),
        (b'[{"name":"a","weight":null}]', b"{}"),
        (b'{"x":1}', b"[]"),
        (b'{"x":1}', b'{"x":[1]}'),
        (b'{"x":1}', b'{"x":{}}'),
        (b'{"x":1}', b'{"\\ud800":1}'),
        (b'{"x":1}', b'{"x":"\\ud800"}'),
        (b'{"x":1}', b'{"\\u0078":1}'),
        (b"00:00:00Z", b"00:00:00+00:00"),
        (b"00:00:00Z", b"00:00:00"),
        (b"T00:00:00Z", b" 00:00:00Z"),
        (b"00:00:00Z", b"00:00:00.000000Z"),
        (b"2026-01-02T", b"20260102T"),
        (b'"kind":"test.tree"', b'"kind":"test.bush"'),
        (b'"kind":"test.tree",', b""),
        (b'"alive":true', b' "alive":true'),
    ],
)
def test_another_spelling_or_type_is_malformed(old: bytes, new: bytes) -> None:
    assert old in RAW
    with pytest.raises(Malformed):
        canonical.decode(Tree, RAW.replace(old, new))


@pytest.mark.parametrize("version", [b"2", b"4", b"true", b'"3"', b"null"])
def test_an_unknown_version_is_told_as_such(version: bytes) -> None:
    with pytest.raises(UnsupportedVersion) as caught:
        canonical.decode(Tree, RAW.replace(b'"version":3', b'"version":' + version))
    assert caught.value.hint == "upgrade the older side"


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b"\xef\xbb\xbf" + RAW, RAW + b"\n", b"[" * 100_000])
def test_what_is_no_document_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        canonical.decode(Tree, raw)


def test_a_document_over_the_limit_is_not_even_parsed() -> None:
    with pytest.raises(Malformed, match="over the limit"):
        canonical.loads(b" " * 11, limit=10)


def test_large_floats_keep_their_canonical_digits() -> None:
    assert canonical.loads(b"100000000000000000000") == 1e20
    with pytest.raises(Malformed):
        canonical.loads(b"100000000000000000001")


def test_a_time_without_a_zone_has_no_form() -> None:
    with pytest.raises(Malformed):
        canonical.print_time(datetime(2026, 1, 1))


def test_a_time_elsewhere_is_printed_in_utc() -> None:
    there = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert canonical.print_time(there) == "2026-01-01T00:00:00Z"


def test_a_value_that_breaks_its_own_rule_is_malformed() -> None:
    from mediator.types import RevocationList

    raw = canonical.encode(RevocationList(1, datetime(2026, 1, 1, tzinfo=UTC), ()))
    with pytest.raises(Malformed, match="number is not a whole number of 1"):
        canonical.decode(RevocationList, raw.replace(b'"number":1', b'"number":0'))


@pytest.mark.parametrize(
    "raw", [b'{"a":1,"a":2}', b'{"a":{"b":1,"b":2}}', b"NaN", b"-Infinity", b"\xef\xbb\xbf{}", b"\xff"]
)
def test_a_strangers_json_is_read_strictly(raw: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        canonical.loads_foreign(raw)
    assert caught.value.message == "not strict UTF-8 JSON"


def test_a_strangers_json_may_have_its_own_form() -> None:
    assert canonical.loads_foreign(b' { "b" : 1.0, "a":[true] }\n') == {"b": 1.0, "a": [True]}


@given(st.recursive(st.none() | st.booleans() | integers | finite | text, lambda inner: st.lists(inner, max_size=3)))
def test_dumps_and_loads_are_inverse(value: Any) -> None:
    raw = canonical.dumps(value)
    assert canonical.dumps(canonical.loads(raw)) == raw
    assert canonical.loads(raw) == value


def test_plain_data_that_was_never_json_is_held_to_the_same_rules() -> None:
    with pytest.raises(Malformed, match="not a finite number"):
        canonical.from_plain(Leaf, {"name": "a", "weight": float("inf")})


@dataclass(frozen=True)
class Nest:
    inner: Nest | None


def test_a_document_nested_too_deep_is_malformed() -> None:
    plain: Any = None
    for _ in range(canonical.MAX_DEPTH + 2):
        plain = {"inner": plain}
    with pytest.raises(Malformed, match="nested deeper"):
        canonical.from_plain(Nest, plain)


@dataclass(frozen=True)
class Sealed:
    content: bytes
    parts: tuple[bytes, ...] = ()


@given(st.builds(Sealed, st.binary(), st.lists(st.binary(), max_size=3).map(tuple)))
def test_bytes_are_printed_as_base64(sealed: Sealed) -> None:
    raw = canonical.dumps(canonical.to_plain(sealed))
    assert canonical.from_plain(Sealed, canonical.loads(raw)) == sealed


@pytest.mark.parametrize("text", ["QQ", "QR==", "Q Q=", "QQ==\n", "_w==", "é", "QQ===", 7, None, ["QQ=="]])
def test_another_spelling_of_bytes_is_malformed(text: Any) -> None:
    assert canonical.from_plain(Sealed, {"content": "QQ==", "parts": []}) == Sealed(b"A")
    with pytest.raises(Malformed) as caught:
        canonical.from_plain(Sealed, {"content": text, "parts": []})
    assert str(text) not in caught.value.message


def test_a_list_of_values_and_a_bare_scalar_need_no_class_of_their_own() -> None:
    assert canonical.from_plain(tuple[Leaf, ...], [{"name": "a", "weight": 1}]) == (Leaf("a", 1.0),)
    assert canonical.from_plain(str, "a") == "a"
    with pytest.raises(Malformed):
        canonical.from_plain(tuple[Leaf, ...], [{"name": "a", "weight": 1, "other": 2}])


@dataclass(frozen=True)
class Ambiguous:
    value: int | str


def test_a_field_of_two_types_is_our_bug() -> None:
    with pytest.raises(TypeError):
        canonical.from_plain(Ambiguous, {"value": 1})
