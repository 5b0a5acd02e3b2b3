"""A house in which something breaks all the time: which promises hold afterwards.

    python -m tests.bench.chaos [--seed N] [--steps N] [--minutes N] [--json]

A seed draws a schedule before anything happens: in each step a round or an import, and in the middle of it a process
killed, the whole node or the hub killed, the connection cut, the disk full, the clock wrong, the disk slow. Then all is
mended, and the promises are looked at. The seed is said first; the same seed plays the same schedule. With `--minutes`
one seed follows the other, each on a hospital of its own.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench import figures
from tests.bench.disturbed_hospital import Disturbed
from tests.bench.promises import broken_promises
from tests.containers.bench import ENGINE_URL
from tests.end_to_end.house import House

COLUMNS = ("seed", "steps", "rounds_done", "rounds_ended_otherwise", "imports_published", "imports_ended_otherwise",
           "killed", "cut", "full", "clock", "slow", "seconds", "broken")  # fmt: skip
ROLES = ("core", "intake", "broker", "link")
DAY_S = 86_400.0


@dataclass(frozen=True)
class Step:
    """One piece of work, and what happens to it: after how long, for how long."""

    work: str  # round, import
    fault: str  # kill core … kill node, kill hub, cut, full, clock, slow, none
    after_s: float
    for_s: float
    size: float = 0.0  # seconds the clock is wrong by, or that each write takes longer


def schedule(seed: int, steps: int) -> tuple[Step, ...]:
    """The same for the same seed. Every kind of fault comes before one comes again."""
    draw = random.Random(seed)
    kinds = [*(f"kill {role}" for role in ROLES), "kill node", "kill hub", "cut", "full", "clock", "slow"]
    drawn: list[Step] = []
    left: list[str] = []
    for _ in range(steps):
        left = left or draw.sample(kinds, len(kinds))
        drawn.append(_step(draw, left.pop()))
    return tuple(drawn)


def _step(draw: random.Random, fault: str) -> Step:
    size = 0.0
    if fault == "clock":
        size = draw.choice([400 * DAY_S, -DAY_S / 12, 3600.0, -600.0])
    elif fault == "slow":
        size = draw.choice([0.05, 0.2])
    # intake has nothing to do with a round, nor the broker, link and hub with an import
    work = {"kill intake": "import", "kill broker": "round", "kill link": "round", "kill hub": "round",
            "cut": "round"}.get(fault) or draw.choice(["round", "import"])  # fmt: skip
    return Step(work, fault, round(draw.uniform(0.2, 3.0), 2), round(draw.uniform(1.0, 4.0), 2), size)


def play(hospital: Disturbed, steps: Sequence[Step], say: Callable[[str], None]) -> None:
    """Every step in turn; after each its fault is mended, and its work goes on or has ended."""
    actions: dict[str, Callable[[Step], None]] = {
        "cut": hospital.cut, "full": hospital.fill, "clock": hospital.set_clock, "slow": hospital.slow_down,
    }  # fmt: skip
    for number, step in enumerate(steps, 1):
        say(f"step {number}: {step}")
        begun = hospital.begin(step.work, number)
        time.sleep(step.after_s)
        if step.fault.startswith("kill "):
            hospital.kill(step.fault.removeprefix("kill "))
        else:
            actions[step.fault](step)
            time.sleep(step.for_s)
            hospital.mend()
        hospital.awake()
        hospital.ended(begun)


def chaos(house: House, seed: int, steps: int, say: Callable[[str], None]) -> dict[str, Any]:
    """One seed's row of figures; what is broken afterwards is told in its last column."""
    planned, started = schedule(seed, steps), time.monotonic()
    say(f"seed {seed}: python -m tests.bench.chaos --seed {seed} --steps {steps}")
    with Disturbed.build(house, seed) as hospital:
        try:
            play(hospital, planned, say)
            hospital.settle()
        except BaseException:
            say(f"seed {seed} ended in the middle; the node's last words:\n{hospital.node.log.read_text()[-3000:]}")
            raise
        broken = broken_promises(hospital)
        faults = Counter("killed" if step.fault.startswith("kill ") else step.fault for step in planned)
        rounds, imports = Counter(hospital.runs.values()), Counter(hospital.imports.values())
    values = (
        seed, steps, rounds["done"], rounds.total() - rounds["done"], imports["published"],
        imports.total() - imports["published"], *(faults[name] for name in COLUMNS[6:11]),
        round(time.monotonic() - started), "; ".join(broken),
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tests.bench.chaos", allow_abbrev=False)
    made.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31))
    made.add_argument("--steps", type=int, default=20)
    made.add_argument("--minutes", type=float, default=0.0)
    made.add_argument("--json", action="store_true")
    return made


def main() -> int:
    given = parser().parse_args()
    os.environ.setdefault("DOCKER_HOST", ENGINE_URL)
    until, rows, house = time.monotonic() + 60 * given.minutes, [], House.build(1)
    try:
        while not rows or time.monotonic() < until:
            rows.append(chaos(house, given.seed + len(rows), given.steps, _say))
    finally:
        house.close()
    figures.show("chaos", COLUMNS, rows, as_json=given.json)
    return 1 if any(row["broken"] for row in rows) else 0


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
