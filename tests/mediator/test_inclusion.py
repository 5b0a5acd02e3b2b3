"""Inclusion proofs of RFC 9162: made in one pass, and good for one line of one tree alone."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediator.tree import MAX_PROOF, Frontier, Inclusion, includes
from tests.mediator.test_audit import tree

LINES = [f"record {number}".encode() for number in range(40)]


def _path(at: int, leaves: list[bytes]) -> list[bytes]:
    """The definition of RFC 9162 section 2.1.3.1, recursively, as the standard writes it."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if at < k:
        return [*_path(at, leaves[:k]), _root(leaves[k:])]
    return [*_path(at - k, leaves[k:]), _root(leaves[:k])]


def _root(leaves: list[bytes]) -> bytes:
    return bytes.fromhex(tree(leaves).root)


def _proof(at: int, size: int) -> tuple[str, ...]:
    growing = Inclusion(at, size)
    for line in LINES[:size]:
        growing.append(line)
    return growing.proof


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 31, 40])
def test_every_line_of_a_tree_has_the_proof_of_the_standard_and_it_holds(size: int) -> None:
    root = tree(LINES[:size]).root
    for at in range(size):
        proof = _proof(at, size)
        assert [bytes.fromhex(node) for node in proof] == _path(at, LINES[:size])
        assert includes(at, LINES[at], size, root, proof)


@given(st.integers(1, 40), st.data())
def test_a_proof_is_good_for_its_own_line_place_and_tree_alone(size: int, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, size - 1))
    root, proof = tree(LINES[:size]).root, _proof(at, size)
    assert not includes(at, LINES[at] + b"x", size, root, proof)
    assert not includes(at, LINES[at], size, hashlib.sha256(b"").hexdigest(), proof)
    assert not includes(at, LINES[at], size, root, [*proof, "0" * 64])
    for other in set(range(size)) - {at}:
        assert not includes(other, LINES[at], size, root, proof)
    for number in range(len(proof)):
        assert not includes(at, LINES[at], size, root, [*proof[:number], *proof[number + 1 :]])
        assert not includes(at, LINES[at], size, root, [*proof[:number], "0" * 64, *proof[number + 1 :]])


@pytest.mark.parametrize(("at", "size", "proof"), [(-1, 1, []), (1, 1, []), (0, 0, []), (0, 2, ["zz"]), (0, 2, [])])
def test_nonsense_proves_nothing(at: int, size: int, proof: list[str]) -> None:
    assert not includes(at, LINES[0], size, Frontier().append(LINES[0]).root, proof)
    assert not includes(0, LINES[0], 1, Frontier().append(LINES[0]).root, ["0" * 64] * (MAX_PROOF + 1))


def test_a_line_that_is_not_there_has_no_proof() -> None:
    with pytest.raises(ValueError, match="not in the tree"):
        Inclusion(3, 3)
