"""Flower's object trees, taken apart without trusting who sent them.

A message is a Merkle tree: Message → RecordDict → {ArrayRecord → Array → ArrayChunk, ConfigRecord, MetricRecord}; an
object's id is the SHA-256 of its bytes, which read `Type child,child… bodylength`, a zero byte, and the body. Flower
1.42 checks neither ids nor sizes when it pulls, and joins chunks as often as an index list says; here both are counted
first. The link reads instructions with this, the hub replies.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from federation.arrays import DTYPES, MAX_NPY_HEADER_BYTES, Array, read_npy
from mediator.errors import Malformed
from mediator.grammar import HEX256, check_name

Fetch = Callable[[Sequence[str]], Iterable[bytes]]
Levels = Sequence[frozenset[str]]


def _levels(*records: str) -> Levels:
    """What may stand at each depth of a message that holds these records."""
    kinds = ("Message",), ("RecordDict",), records, ("Array",), ("ArrayChunk",)
    return tuple(frozenset(kind) for kind in kinds)


INSTRUCTION = _levels("ArrayRecord", "ConfigRecord")
REPLY = _levels("ArrayRecord", "MetricRecord")
# a state dict of a large network has a few thousand tensors, each an Array and at least one chunk
MAX_OBJECTS = 50_000
# heads, metadata and the signed instruction, beside the tensors' own bytes
_OVERHEAD_BYTES = 16 << 20
_ID = re.compile(HEX256)


@dataclass(frozen=True)
class TreeNode:
    """One object: its type, its children's ids in order, its body."""

    type: str
    children: tuple[str, ...]
    body: bytes


def split(content: bytes) -> TreeNode:
    """The parts of one object's bytes, or `Malformed`."""
    head, found, body = content.partition(b"\0")
    try:
        kind, children, length = head.decode("ascii").split(" ")
        ids = tuple(children.split(",")) if children else ()
        if not found or length != str(len(body)) or not all(_ID.fullmatch(key) for key in ids):
            raise ValueError("head")
    except ValueError as error:
        raise Malformed("an object without a proper head") from error
    return TreeNode(kind, ids, body)


def collect(root: str, fetch: Fetch, max_model_bytes: int, levels: Levels = INSTRUCTION) -> dict[str, TreeNode]:
    """Every object under `root`, level by level; `fetch` gives the contents for ids, in their order.

    1. Each object's bytes hash to the id it was asked for by.
    2. Each stands at a depth where its type may stand.
    3. Their number and the sum of their sizes stay under fixed limits.

    Raises `Malformed`.
    """
    nodes: dict[str, TreeNode] = {}
    wanted: Sequence[str] = (root,)
    total = 0
    for allowed in levels:
        if len(nodes) + len(wanted) > MAX_OBJECTS:  # (3)
            raise Malformed("a message of too many objects")
        for key, content in zip(wanted, fetch(wanted), strict=True):
            total += len(content)
            if total > max_model_bytes + _OVERHEAD_BYTES:  # (3)
                raise Malformed("a message larger than is taken here")
            if hashlib.sha256(content).hexdigest() != key:  # (1)
                raise Malformed("an object whose bytes are not what its id says")
            nodes[key] = split(content)
            if nodes[key].type not in allowed:  # (2)
                raise Malformed("an object of a kind that has no place here")
        children = (child for key in wanted for child in nodes[key].children)
        wanted = [child for child in dict.fromkeys(children) if child not in nodes]
    if wanted:
        raise Malformed("a message nested too deep")
    return nodes


def references(node: TreeNode) -> dict[str, str]:
    """Names to ids of a RecordDict or an ArrayRecord; each child is named, by a permitted name, and nothing else."""
    plain = _json(node.body)
    if not isinstance(plain, dict) or not all(isinstance(key, str) for key in plain.values()):
        raise Malformed("a record whose body does not name its parts")
    try:
        for name in plain:
            check_name(name, "a part's name")
    except ValueError as error:
        raise Malformed("a record that names its parts as nobody may") from error
    if set(plain.values()) != set(node.children):
        raise Malformed("a record that names other parts than it has")
    return plain


def tensors(record: TreeNode, nodes: Mapping[str, TreeNode], max_model_bytes: int) -> dict[str, Array]:
    """The arrays of an ArrayRecord, each exactly the `.npy` its metadata announces. Raises `Malformed`."""
    found: dict[str, Array] = {}
    room = max_model_bytes
    for name, key in references(record).items():
        dtype, shape, order = _array_metadata(nodes[key])
        size = math.prod(shape) * DTYPES[dtype].itemsize
        parts = [nodes[child].body for child in order]
        # checked before joining: an index list may name one chunk a million times
        if sum(map(len, parts)) > size + MAX_NPY_HEADER_BYTES or size > room:
            raise Malformed("a model larger than is taken here")
        room -= size
        found[name] = read_npy(b"".join(parts), dtype, shape)
    return found


def _array_metadata(node: TreeNode) -> tuple[str, tuple[int, ...], list[str]]:
    plain = _json(node.body)
    if not isinstance(plain, dict) or plain.keys() != {"dtype", "shape", "stype", "arraychunk_ids"}:
        raise Malformed("an array with other metadata than an array has")
    shape, order = plain["shape"], plain["arraychunk_ids"]
    if plain["stype"] != "numpy.ndarray" or not isinstance(plain["dtype"], str) or plain["dtype"] not in DTYPES:
        raise Malformed("an array of a kind that may not cross")
    if not isinstance(shape, list) or len(shape) > 8 or any(type(side) is not int or side < 1 for side in shape):
        raise Malformed("an array without a proper shape")
    count = len(node.children)
    if not isinstance(order, list) or any(type(item) is not int or not 0 <= item < count for item in order):
        raise Malformed("an array that is made of chunks it does not have")
    return plain["dtype"], tuple(shape), [node.children[item] for item in order]


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except Exception as error:
        raise Malformed("an object whose body is not JSON") from error
