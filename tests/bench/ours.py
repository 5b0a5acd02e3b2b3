"""Our engine over a folder in one process, as `cloister deid run` uses it but for the pixels' text; run by `deid.py`.

Gate 0 whole: verdict on the instance, header rewritten, pixels copied, the file read again from disk and searched; and
each file of a batch searched once more for what the files after it lost.

usage: ours.py header|hash SOURCE TARGET [PROFILE] [TREE]; TREE is another checkout whose code is to run instead
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable
from functools import partialmethod
from itertools import islice
from pathlib import Path

sys.path.insert(0, sys.argv[5] if len(sys.argv) > 5 else str(Path(__file__).resolve().parents[2]))

from mediator.deid.pseudonyms import Pseudonyms
from node.deid.copiers import SWITCH_S, UNDER_WAY, Copiers
from node.deid.deidentify import Finished, Gate0, suspects
from node.deid.deidentify_folder import BATCH
from node.deid.engine import ProfileEngine
from node.deid.outcome import GateOutcome
from node.deid.profiles import load_profile, standard
from node.deid.stream import FileStream
from tests.bench.timing import timed


class HashingEngine(ProfileEngine):
    """Takes the SHA-256 of every pixel value on its way."""

    begin = partialmethod(ProfileEngine.begin, hash_pixels=True)  # type: ignore[assignment]


def convert(gate: Gate0, source: str, names: list[str], target: Path) -> list[GateOutcome]:
    """A batch of files, a few of them under way at a time."""
    placed: list[GateOutcome] = []
    under_way: deque[tuple[FileStream, Callable[[], GateOutcome]]] = deque()

    def finish() -> None:
        original, begun = under_way.popleft()
        placed.append(begun())
        original.close()

    for name in names:
        original = FileStream(os.open(f"{source}/{name}", os.O_RDONLY | os.O_NOFOLLOW))
        under_way.append((original, gate.begin(original, target, lambda _identity, name=name: name)))
        if len(under_way) > UNDER_WAY:
            finish()
    while under_way:
        finish()
    return placed


def main() -> None:
    how, source, target, profile = (*sys.argv[1:], "eucaim")[:4]
    copiers = Copiers()
    sys.setswitchinterval(SWITCH_S)
    engine = (HashingEngine if how == "hash" else ProfileEngine)(load_profile(profile), standard(), copiers)
    gate = Gate0(engine, Pseudonyms(bytes(32), "bench"), review=True)

    def work() -> None:
        names = iter(sorted(os.listdir(source)))
        with copiers:
            while batch := list(islice(names, BATCH)):
                placed = convert(gate, source, batch, Path(target))
                assert all(one.place == "pass" for one in placed)
                finished = [(one, f"{one.identity.instance}.dcm") for one in placed]
                found = suspects(
                    [Finished(one.path, one.identity.keys, one.lost, name) for one, name in finished], engine
                )
                assert not list(found)

    timed(work)


if __name__ == "__main__":
    main()
