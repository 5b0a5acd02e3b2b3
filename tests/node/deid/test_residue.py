"""The search for lost values against the plain one: every place of every token, and nothing else."""

import random

import numpy as np
import pytest

from mediator.deid import residual
from node.deid import residue
from node.deid.residue import Residue

LETTERS = b"ab1.\\ \xc3\x00"


def plainly(haystack: bytes, tokens: set[bytes]) -> set[tuple[int, bytes]]:
    low = haystack.lower()
    return {(at, token) for token in tokens for at in range(len(low)) if low.startswith(token, at)}


@pytest.mark.parametrize("seed", range(30))
def test_every_place_of_every_token_is_found(monkeypatch, seed):
    monkeypatch.setattr(residue, "_STEP", 64)
    chance = random.Random(seed)
    searched, values = Residue(), []
    for _ in range(40):
        values.append(bytes(chance.choices(LETTERS, k=chance.randint(1, 14))))
        searched.lost(values[-1:])
    tokens = set(residual.tokens(values))
    for length in (0, 1, 3, 4, 5, 7, 8, 9, 63, 64, 65, 71, 72, 700):
        haystack = bytes(chance.choices(LETTERS + b"AB", k=length))
        found = list(searched.search(haystack))
        assert len(found) == len(set(found)) and set(found) == plainly(haystack, tokens)


def test_one_slot_is_what_all_slots_say(monkeypatch):
    data = np.random.default_rng(3).bytes(300)
    for size, slots in residue._slots(data):
        assert [residue._slot(data[at : at + size]) for at in range(len(slots))] == slots.tolist()


def test_what_the_profile_lost_is_told_once():
    lost = Residue()
    assert lost.lost([b"Vermeulen", b"Jan"]) and not lost.lost([b"Vermeulen"])
    assert set(lost.take()) == {b"Vermeulen", b"Jan"} and lost.take() == [] and lost.whole == {b"jan"}
