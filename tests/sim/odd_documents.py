"""Documents as a stranger writes them: a valid one with a few of its values odd, signed whatever the grammar says.

The values are those that have hurt somebody: ids that read like a date or a DICOM UID, versions of 0, numbers at the
edge of what JSON holds, texts with control and direction characters, the first year and the last, lists that are empty
or long. `odd` gives plain JSON; `sign_plain` signs it without asking anybody.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from mediator import canonical
from mediator.canonical import Document
from mediator.grammar import MAX_INTEGER
from mediator.signatures import SigningKey

IDS = (
    "lung-2026.11.26.1.2", "2026.11.26.1.2", "1.2.840.113619.2.55.3", "2.25.329800735698586629295641978511506172918",
    "lung_2026", "v2.25.1", "0.0.0.0.0.0", "9" * 64, "a" * 64, "a" * 65, "-a", ".", "..", "a/b", "Lung", "", "unknown",
)  # fmt: skip
TEXTS = (
    *IDS, "x" * 200, "x" * 201, "x" * 10_001, "Müller, Station 4", "肺", "🫁" * 100, "a\0b", "a\x1b[2Jb", "a\nb",
    "\u202eb", "\u2028", "=1+1", "../../etc/passwd", "2026-11-27", "2026-11-27T00:00:00Z", "sha256:" + "0" * 64,
    "f" * 64, "F" * 64, "\x7f", "\ufeff", "e\u0301", "run-1/1/train/1", "run-1/0/train/0", "1.2.3.4.5.6/1/train/1",
)  # fmt: skip
NUMBERS = (
    0, -1, 1, 2, 9, 64, 1 << 31, (1 << 31) + 1, 1 << 32, MAX_INTEGER, -MAX_INTEGER, 1e-300, 5e-324, 1e-9, 0.009, 0.5,
    1.5, 1e6, 1e18, 1.7e308, -1.7e308, 366 * 86_400, 366 * 86_400 + 1,
)  # fmt: skip
TIMES = ("0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "2026-11-22T12:00:00.000001Z", "9999-12-31T23:59:59.999999Z")
_MANY = 1_001


def _places(plain: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    for key, value in inner:
        if not (path == () and key in ("kind", "version")):
            yield from _places(value, (*path, key))


def _odd_value(value: Any) -> st.SearchStrategy[Any]:
    if isinstance(value, bool) or value is None:
        return st.sampled_from((None, True, 0, "true"))
    if isinstance(value, str):
        return st.one_of(st.sampled_from(TEXTS), st.sampled_from(TIMES), st.text(max_size=80))
    if isinstance(value, int | float):
        return st.one_of(st.sampled_from(NUMBERS), st.integers(-MAX_INTEGER, MAX_INTEGER), st.floats(allow_nan=False))
    if isinstance(value, list):
        return st.sampled_from(([], value * 2, value[::-1], value * _MANY if len(str(value)) < 100 else value))
    if isinstance(value, dict):
        return st.sampled_from(
            ({}, value | {"a": 1}, value | {"x" * 129: 1}, value | {f"k{n}": 1 for n in range(_MANY)})
        )
    raise TypeError(type(value))


@st.composite
def odd(draw: st.DrawFn, document: Document) -> Any:
    """A document's plain JSON with up to three of its values odd."""
    plain = canonical.to_plain(document)
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from([each for each in _places(plain) if each]))
        parent = plain = copy.deepcopy(plain)
        for key in path[:-1]:
            parent = parent[key]
        parent[path[-1]] = draw(_odd_value(parent[path[-1]]))
    return plain


def sign_plain(key: SigningKey, kind: str, plain: Any) -> str:
    """A signed document whose payload nobody has looked at. Raises `Malformed` for what has no canonical form."""
    header = canonical.dumps({"alg": "Ed25519", "kid": key.key_id, "typ": kind})
    head = f"{_segment(header)}.{_segment(canonical.dumps(plain))}"
    return f"{head}.{_segment(key.sign_bytes(head.encode()))}"


def _segment(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
