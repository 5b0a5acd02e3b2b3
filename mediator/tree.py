"""A Merkle tree over the lines of a log, the proof that one tree is the beginning of another, and the proof that a line
is in a tree (RFC 9162).

Leaves are hashed with 0x00, nodes with 0x01, SHA-256 (section 2.1). A consistency proof (section 2.1.4) needs the
complete subtrees of the shorter tree, which a `Frontier` holds, and the lines that came after it; none before. An
inclusion proof (section 2.1.3) is made while the lines pass by once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# A tree of 2^53 leaves is 53 deep, and a proof has one hash more at most.
MAX_PROOF = 54
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Frontier:
    """A Merkle tree while it grows: the roots of its complete subtrees, largest first."""

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def append(self, line: bytes) -> Frontier:
        """The tree with one more leaf: `line` is a record's bytes without the line end."""
        peaks, node, size = list(self.peaks), leaf(line), self.size
        while size & 1:  # one subtree of this height is complete: the two become one of the next
            node = _node(peaks.pop(), node)
            size >>= 1
        return Frontier(self.size + 1, (*peaks, node))

    @property
    def root(self) -> str:
        """The tree head in hex; of no records, the hash of nothing."""
        if not self.peaks:
            return hashlib.sha256(b"").hexdigest()
        node = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            node = _node(peak, node)
        return node.hex()


def leaf(line: bytes) -> bytes:
    """The hash of one line."""
    return hashlib.sha256(b"\x00" + line).digest()


def prove(old: Frontier, lines: Iterable[bytes]) -> tuple[str, ...]:
    """The proof, in hex, that the tree of `old` is the beginning of the one with `lines` after it.

    Empty where there is nothing to prove: no old tree, or nothing after it.
    """
    leaves = [leaf(line) for line in lines] if old.size else []
    if not leaves:
        return ()
    return tuple(node.hex() for node in _Prover(old, leaves).subproof(0, old.size, True))


def proves(old_size: int, old_root: str, size: int, root: str, proof: Sequence[str]) -> bool:
    """Whether `proof` shows that the tree of `old_size` and `old_root` is the beginning of the other one.

    RFC 9162 section 2.1.4.2. Of one size there is one root and no proof; every tree begins with the empty one.
    """
    if not 0 <= old_size <= size or len(proof) > MAX_PROOF or not all(_HEX.fullmatch(node) for node in proof):
        return False
    if old_size == size:
        return not proof and old_root == root
    if old_size == 0:
        return not proof and old_root == Frontier().root
    nodes = [bytes.fromhex(node) for node in proof]
    if old_size & (old_size - 1) == 0:  # a complete tree is its own first node
        nodes.insert(0, bytes.fromhex(old_root))
    return _climb(old_size, size, nodes) == (old_root, root)


def _climb(old_size: int, size: int, nodes: list[bytes]) -> tuple[str, str] | None:
    """The two roots that the nodes of a proof lead to; nothing where there are too few or too many."""
    at, last = old_size - 1, size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    if not nodes:
        return None
    old = new = nodes[0]
    for node in nodes[1:]:
        if last == 0:
            return None
        if at & 1 or at == last:
            old, new = _node(node, old), _node(node, new)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            new = _node(new, node)
        at, last = at >> 1, last >> 1
    return (old.hex(), new.hex()) if last == 0 else None


class Inclusion:
    """The proof that line `at` (from 0) is in the tree of the first `size` lines, while these pass by in order.

    RFC 9162 section 2.1.3.1. It keeps one growing subtree for each node of the proof: no line is kept.
    """

    def __init__(self, at: int, size: int) -> None:
        if not 0 <= at < size:
            raise ValueError("a line that is not in the tree")
        self._ranges = _siblings(at, 0, size)
        self._grown = [Frontier() for _ in self._ranges]
        self._passed = 0

    def append(self, line: bytes) -> None:
        """The next line, without its end."""
        for number, (begin, end) in enumerate(self._ranges):
            if begin <= self._passed < end:
                self._grown[number] = self._grown[number].append(line)
        self._passed += 1

    @property
    def proof(self) -> tuple[str, ...]:
        """The hashes from the leaf's neighbour up, in hex, once every line has passed."""
        return tuple(grown.root for grown in self._grown)


def includes(at: int, line: bytes, size: int, root: str, proof: Sequence[str]) -> bool:
    """Whether `proof` shows that `line` is number `at` (from 0) of the tree of `size` and `root`.

    RFC 9162 section 2.1.3.2.
    """
    if not 0 <= at < size or len(proof) > MAX_PROOF or not all(_HEX.fullmatch(node) for node in proof):
        return False
    node, last = leaf(line), size - 1
    for other in map(bytes.fromhex, proof):
        if last == 0:
            return False
        if at & 1 or at == last:
            node = _node(other, node)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            node = _node(node, other)
        at, last = at >> 1, last >> 1
    return last == 0 and node.hex() == root


def _siblings(at: int, begin: int, end: int) -> list[tuple[int, int]]:
    """The subtrees beside the way from line `at` to the root, lowest first: PATH of RFC 9162 section 2.1.3.1."""
    if end - begin == 1:
        return []
    middle = begin + _split(end - begin)
    if at < middle:
        return [*_siblings(at, begin, middle), (middle, end)]
    return [*_siblings(at, middle, end), (begin, middle)]


class _Prover:
    """Hashes of subtrees: before the old tree's end they are its peaks, after it they are made of leaves."""

    def __init__(self, old: Frontier, leaves: list[bytes]) -> None:
        self._old = old.size
        self._leaves = leaves
        self._peaks: dict[tuple[int, int], bytes] = {}
        begin = 0
        heights = [bit for bit in reversed(range(old.size.bit_length())) if old.size >> bit & 1]
        for height, peak in zip(heights, old.peaks, strict=True):
            self._peaks[begin, begin + (1 << height)] = peak
            begin += 1 << height
        self._size = old.size + len(leaves)

    def subproof(self, begin: int, old: int, whole: bool, end: int = 0) -> list[bytes]:
        """SUBPROOF of RFC 9162 section 2.1.4.1 over the leaves from `begin` to `end`, of which `old` are old."""
        end = end or self._size
        if old == end - begin:
            return [] if whole else [self._root(begin, end)]
        middle = begin + _split(end - begin)
        if old <= middle - begin:
            return [*self.subproof(begin, old, whole, middle), self._root(middle, end)]
        return [*self.subproof(middle, old - (middle - begin), False, end), self._root(begin, middle)]

    def _root(self, begin: int, end: int) -> bytes:
        if end <= self._old:
            return self._peaks[begin, end]
        if end - begin == 1:
            return self._leaves[begin - self._old]
        middle = begin + _split(end - begin)
        return _node(self._root(begin, middle), self._root(middle, end))


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
