"""What intake says to core of originals it destroyed: each number until core has answered, whatever comes between."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from mediator.errors import NotNow
from node.host.config import NodeConfig
from node.intake import run_import
from node.intake.process import IntakeProcess
from node.ipc import intake as words
from node.ipc.channel import Client
from node.ipc.messages import Empty
from node.ipc.verb import Verb
from tests.node.core.process.test_process import config as config
from tests.sim.cohort import write_cohort
from tests.sim.dying_intake import order_for

NAME = "order-1"


class ToldCore:
    """Gives out `work` and remembers what it is told; while it is `away`, it hears nothing."""

    def __init__(self, *work: words.Work) -> None:
        self.work = work
        self.told: list[Any] = []
        self.away = False

    def call(self, verb: Verb, request: Any, timeout_s: float = 1.0) -> Any:
        if verb is words.LIVE:
            return words.LiveImports(tuple(each.order.order for each in self.work))
        if self.away:
            raise NotNow("core is away")
        self.told.append(request)
        return words.GoOn(True) if verb is words.PROGRESS else Empty()

    def stream(self, verb: Verb, request: Empty) -> Iterator[words.Work]:
        yield from self.work


def intake_of(config: NodeConfig, core: ToldCore) -> IntakeProcess:
    return IntakeProcess(config, cast(Client, core))


def seal(room: Path, count: int) -> None:
    (room / "files").mkdir(parents=True)
    for number in range(count):
        (room / "files" / f"{number:032x}").write_bytes(b"sealed")


def carry_out(config: NodeConfig, *, begun: bool = True) -> words.Work:
    source = config.state_dir.parent / "source"
    source.mkdir()
    write_cohort(source, "alpha", 1, seed=2)
    return words.Work("carry_out", order_for(source), begun=begun)


def test_a_sweep_that_core_did_not_hear_of_says_the_same_number_again(config: NodeConfig) -> None:
    core, quarantine = ToldCore(), config.paths.quarantine
    seal(quarantine / "ingest-0123456789ab", 3)
    core.away = True
    with pytest.raises(NotNow):
        intake_of(config, core).serve()
    assert not (quarantine / "ingest-0123456789ab").exists()
    core.away = False
    intake_of(config, core).serve()
    assert core.told == [words.Swept("ingest-0123456789ab", 3)] and not any(quarantine.iterdir())


def test_a_name_in_the_way_that_cannot_be_destroyed_keeps_no_other_from_it(
    config: NodeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    core, quarantine, handover = ToldCore(), config.paths.quarantine, config.paths.handover
    (handover / "lost+found").mkdir()
    (quarantine / "note.txt").write_text("left here")
    seal(quarantine / "ingest-0123456789ab", 2)
    rmtree = shutil.rmtree

    def closed(path: Path, **more: Any) -> None:
        if path.name == "lost+found":
            raise PermissionError
        rmtree(path, **more)

    monkeypatch.setattr(run_import.shutil, "rmtree", closed)
    intake_of(config, core).serve()
    assert core.told == [words.Swept("ingest-0123456789ab", 2)]
    assert not any(quarantine.iterdir()) and [path.name for path in handover.iterdir()] == ["lost+found"]


def test_an_import_whose_key_is_gone_ends_and_is_destroyed(config: NodeConfig) -> None:
    core = ToldCore(carry_out(config))
    seal(config.paths.quarantine / NAME, 2)
    config.paths.quarantine_key.unlink()
    intake_of(config, core).serve()
    (end,) = core.told
    assert (end.order, end.destroyed) == (NAME, 2) and end.error
    assert not any(config.paths.quarantine.iterdir())


@pytest.mark.parametrize("begun", [False, True])
def test_an_import_that_is_half_destroyed_is_not_gone_on_with(config: NodeConfig, begun: bool) -> None:
    """Killed in between: some originals are gone, and the others would be published as all there are."""
    core, rooms = ToldCore(carry_out(config, begun=begun)), config.paths.quarantine
    seal(rooms / NAME, 1)
    (rooms / f".{NAME}.destroyed").write_text("7\n")
    intake_of(config, core).serve()
    (end,) = core.told
    assert (end.destroyed, end.again) == (7, True) and end.error and not any(rooms.iterdir())


def test_an_end_that_core_did_not_hear_of_is_told_again_with_its_number(config: NodeConfig) -> None:
    core, rooms = ToldCore(words.Work("destroy", order_for(config.state_dir.parent))), config.paths.quarantine
    seal(rooms / NAME, 4)
    core.away = True
    with pytest.raises(NotNow):
        intake_of(config, core).serve()
    core.away = False
    intake_of(config, core).serve()
    assert core.told == [words.IngestEnd(NAME, 4, error="it was stopped")] and not any(rooms.iterdir())


def test_an_import_that_had_begun_and_of_which_nothing_is_left_is_not_begun_anew(config: NodeConfig) -> None:
    core = ToldCore(carry_out(config))
    intake_of(config, core).serve()
    (end,) = core.told
    assert "lost" in end.error and not any(config.paths.quarantine.iterdir())


def test_every_step_of_an_import_is_a_sign_of_life_and_after_it_intake_waits_again(config: NodeConfig) -> None:
    """What the watchdog is fed by (`node.host.notify.Pulse`); this core takes no study, so the import fails at one."""
    core, seen = ToldCore(carry_out(config, begun=False)), []
    process = IntakeProcess(config, cast(Client, core), step=lambda: seen.append("step"))
    process.serve(lambda: seen.append("idle"))
    assert seen[0] == "step" and seen[-1] == "idle" and seen.count("idle") == 1
    progress = [each for each in core.told if isinstance(each, words.IngestProgress)]
    assert progress and seen.count("step") > len(progress)
