"""Our engine over a folder in one process, as the command and intake use it; run by `deid.py`.

usage: ours.py header|hash SOURCE TARGET
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.screening import Exclusion
from mediator.deid.values import Subject
from node.deid.copiers import UNDER_WAY, Copiers
from node.deid.draft import Conversion
from node.deid.engine import open_engine
from tests.bench.timing import timed


def main() -> None:
    how, source, target = sys.argv[1:]
    keyed = Pseudonyms(bytes(32), "bench")
    copiers = Copiers()
    engine = open_engine("eucaim", copiers)
    subjects: dict[str, Subject] = {}
    under_way: deque[tuple[int, Callable[[], Conversion]]] = deque()

    def finish() -> None:
        handle, convert = under_way.popleft()
        assert convert().exclusion is None
        os.close(handle)

    def work() -> None:
        with copiers:
            for name in sorted(os.listdir(source)):
                handle = os.open(f"{source}/{name}", os.O_RDONLY | os.O_NOFOLLOW)
                found = engine.open(handle)
                assert not isinstance(found, Exclusion)
                who = found.facts.patient_id
                if who not in subjects:
                    subjects[who] = Subject(keyed, keyed.patient(who), keyed.shift_days(who))
                path = Path(target, f"{keyed.uid(found.facts.sop_instance)}.dcm")
                begun = engine.begin(found, subjects[who], path, hash_pixels=how == "hash")
                under_way.append((handle, begun))
                if len(under_way) == UNDER_WAY:
                    finish()
            while under_way:
                finish()

    timed(work)


if __name__ == "__main__":
    main()
