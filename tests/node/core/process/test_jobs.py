"""The staff's verbs about jobs, asked of a core of real parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mediator.errors import Code, UsageFault
from mediator.jobs import JobState
from node.core.tasks import handlers as jobs
from node.ipc import jobs as words
from node.ipc.caller import Caller
from node.ipc.messages import Empty
from tests.mediator import samples
from tests.node.core.desk import Desk, eventually
from tests.node.core.test_queue import ONE_SLOT, Work, add_project, ask, row, settle


class Asked:
    """One role's verbs on a desk."""

    def __init__(self, desk: Desk, role: str) -> None:
        process: Any = SimpleNamespace(core=desk.core, jobs=desk.jobs, progress_of=lambda _: 0.25)
        self._handlers = jobs.HANDLERS.of(process)
        self._caller = Caller(role)

    def __call__(self, verb: Any, job: str = "") -> Any:
        handler: Any = self._handlers[verb]
        return handler(self._caller, words.JobId(job) if job else Empty())


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def desk(tmp_path: Path, work: Work) -> Iterator[Desk]:
    made = work.desk = Desk(tmp_path, work, schedule=ONE_SLOT)
    made.jobs.start()
    add_project(made, "a", 2)
    for run in ("a-0", "a-1"):
        ask(made, run)
        settle(made, work)
    yield made
    made.now += samples.DAY
    made.jobs.stop()
    made.boxes.shut_down()
    made.core.store.close()


def test_a_list_tells_who_runs_and_who_waits_for_what(desk: Desk) -> None:
    lines = {line.run: line for line in Asked(desk, "auditor")(words.JOBS)}
    assert (lines["a-0"].state, lines["a-0"].wait, lines["a-0"].fraction) == ("running", "", 0.25)
    assert (lines["a-1"].state, lines["a-1"].wait, lines["a-1"].place) == ("admitted", "no_slot_free", 1)
    assert Asked(desk, "auditor")(words.JOB_SHOW, lines["a-1"].job) == lines["a-1"]
    with pytest.raises(UsageFault):
        Asked(desk, "auditor")(words.JOB_SHOW, "job-none")


def test_who_asked_for_a_log_or_an_end_stands_in_the_audit_log(desk: Desk) -> None:
    asked, running, waiting = Asked(desk, "it_admin"), row(desk, "a-0"), row(desk, "a-1")
    before = desk.size()
    assert asked(words.JOB_LOGS, running.job).sandbox == running.sandbox
    with pytest.raises(UsageFault, match="not been given"):
        asked(words.JOB_LOGS, waiting.job)
    asked(words.JOB_STOP, waiting.job)
    eventually(lambda: row(desk, "a-1").state is JobState.STOPPED)
    assert row(desk, "a-1").code is Code.STOPPED
    written = [(each.action, each.about, each.verdict) for each in desk.log(before)]
    assert written[:2] == [("access", f"log/{running.job}", "allowed"), ("job_stop", waiting.job, "allowed")]
    with desk.core.store.read() as snapshot:
        assert all('"actor":"it_admin.unknown"' in text for text in snapshot.audit_lines(before, 2))
