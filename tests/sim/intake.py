"""An intake without a core: what core would have taken stands in the handover folder, as a version would hold it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from mediator.import_orders import IngestOrder, IngestReport
from node.intake.handover import ReadyStudy
from node.intake.run_import import IntakeFolders, IntakeKeys, Progress, StartWorkers, run_import
from tests.sim.deid_workers import headers_only, started

KEYS = IntakeKeys(b"s" * 32, b"q" * 32)


@dataclass
class KeepingCore:
    """Takes every study once, to `studies/<study>/`, and remembers what it was told."""

    taken: list[ReadyStudy] = field(default_factory=list)

    def take(self, ready: ReadyStudy) -> None:
        target = ready.folder.parent / "studies" / ready.study
        target.parent.mkdir(mode=0o750, exist_ok=True)
        partial = target.with_suffix(".partial")
        assert len(list(ready.folder.iterdir())) == ready.instances
        self.taken.append(ready)
        if not target.exists():
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(ready.folder, partial)
            partial.rename(target)


def steps_of(
    order: IngestOrder,
    rooms: IntakeFolders,
    keys: IntakeKeys = KEYS,
    workers: StartWorkers | None = None,
    core: KeepingCore | None = None,
    *,
    give_up: bool = False,
    allowed: Callable[[], None] = lambda: None,
) -> Iterator[Progress]:
    """An import's steps; without `workers` nobody looks at pixels."""
    return run_import(
        order,
        keys=keys,
        rooms=rooms,
        workers=workers or started(headers_only),
        take=(core or KeepingCore()).take,
        give_up=give_up,
        allowed=allowed,
    )


def taken_in(
    order: IngestOrder, rooms: IntakeFolders, keys: IntakeKeys = KEYS, workers: StartWorkers | None = None
) -> IngestReport:
    """The account of an import that was carried out whole."""
    report = list(steps_of(order, rooms, keys, workers))[-1].report
    assert report is not None
    return report
