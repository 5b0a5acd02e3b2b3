"""A task from the instruction to the answer, over every way it may be broken off."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mediator import canonical
from mediator.audit import Action, Verdict
from mediator.errors import Code, Denied, HubCode, Reason, UsageFault
from mediator.import_orders import IngestOrder
from mediator.jobs import JobState, JobStep
from mediator.types import ContainerSpec, Kind, RevocationList, RevocationListV2
from node.core.context import event
from node.core.documents.documents import Documents
from node.core.imports.imports import Imports
from node.core.tasks import pause
from node.ipc.node import PauseResult
from tests.mediator import samples
from tests.node.core.desk import VERDICT, Desk, Gate, Written, eventually, later


def test_a_task_is_admitted_charged_run_released_and_written_down_in_this_order(desk: Desk, gate: Gate) -> None:
    before = desk.size()
    gate.open.set()
    assert desk.ask() is None
    desk.until(JobState.RELEASED)
    assert [(each.action, each.verdict) for each in desk.log(before)] == [
        ("instruction_receive", "done"), ("task_admit", "allowed"), ("ledger_charge", "done"),
        ("job_prepare", "allowed"), ("job_start", "allowed"), ("job_produce", "allowed"),
        ("release", "allowed"), ("release", "done"),
    ]  # fmt: skip
    row = next(desk.outbox.follow(lambda: True))
    assert row.envelope is not None and (desk.root / "spool" / str(row.folder)).is_dir()
    desk.outbox.delivered(row.instruction)
    assert desk.job().state is JobState.DELIVERED and list((desk.root / "spool").iterdir()) == []
    assert list((desk.root / "jobs").iterdir()) == []


def test_the_same_delivery_again_changes_nothing(desk: Desk, gate: Gate) -> None:
    gate.open.set()
    desk.ask()
    desk.until(JobState.RELEASED)
    before = desk.size()
    assert desk.ask() is None and desk.size() == before


def test_a_replayed_instruction_is_refused(desk: Desk, gate: Gate) -> None:
    gate.open.set()
    desk.ask()
    desk.until(JobState.RELEASED)
    before, charges = desk.size(), desk.charges()
    assert desk.ask(context=b"another message") is HubCode.REFUSED_INSTRUCTION
    assert desk.log(before) == [Written("task_admit", "run-1/1/train/1", "refused", "instruction_replayed")]
    assert desk.charges() == charges and gate.asked == 1


def test_an_attempt_that_comes_while_the_one_before_it_works_delivers_what_that_one_releases(
    desk: Desk, gate: Gate
) -> None:
    """A hub that was killed and started again asks for a round that is being computed."""
    desk.ask()
    eventually(lambda: gate.asked == 1)
    assert desk.ask(attempt=2) is None
    assert desk.job(2).state is JobState.ADMITTED
    gate.open.set()
    desk.until(JobState.RELEASED)
    desk.until(JobState.RELEASED, attempt=2)
    assert gate.asked == 1 and len(desk.charges()) == 1 and len(desk.releases()) == 1
    told = [each.about for each in desk.log() if each.action == "redeliver"]
    assert told[0] == "run-1/1/train/2" and told[1].startswith("run-1/1/train/2@")
    roots = {each.about.split("@")[1] for each in desk.log() if "@" in each.about and each.verdict == "done"
             and each.action in ("release", "redeliver")}  # fmt: skip
    assert len(roots) == 1, "the very same objects"


def test_an_attempt_after_a_release_is_answered_from_what_is_stored(desk: Desk, gate: Gate) -> None:
    gate.open.set()
    desk.ask()
    desk.until(JobState.RELEASED)
    assert desk.ask(attempt=2) is None
    assert desk.job(2).state is JobState.RELEASED and gate.asked == 1 and len(desk.charges()) == 1


def test_a_release_whose_objects_were_deleted_is_neither_delivered_nor_computed_again(desk: Desk, gate: Gate) -> None:
    gate.open.set()
    desk.ask()
    desk.until(JobState.RELEASED)
    shutil.rmtree(desk.root / "releases" / "run-1")
    desk.ask(attempt=2)
    assert desk.job(2).state is JobState.REFUSED and desk.job(2).code is Code.ROUND_ALREADY_SERVED
    assert gate.asked == 1 and len(desk.releases()) == 1


def test_a_second_model_for_a_round_that_was_served_is_refused(desk: Desk, gate: Gate) -> None:
    """Two models in one round would be two answers about the same data."""
    gate.open.set()
    desk.ask()
    desk.until(JobState.RELEASED)
    before = desk.size()
    assert desk.ask(model=samples.model(2.0), attempt=2) is HubCode.REFUSED_INSTRUCTION
    assert desk.job(2).state is JobState.REFUSED and desk.job(2).code is Code.ROUND_ALREADY_SERVED
    assert [each.action for each in desk.log(before)] == ["instruction_receive", "task_admit"]


def test_a_core_killed_in_the_middle_of_a_task_continues_and_charges_nothing_twice(tmp_path: Path) -> None:
    """What its successor finds: a job that is running, a container and a work area that nobody here knows of."""
    desk = Desk(tmp_path)
    desk.ask()
    job, left = desk.job().job, tmp_path / "work" / "train-left-over"
    left.mkdir()
    with desk.core.store.transaction(desk.now) as tx:
        for happened in (JobStep.PREPARE, JobStep.START):
            tx.advance(job, happened, event=event(Action.JOB_PREPARE, job, Verdict.ALLOWED), sandbox=left.name)
    until = desk.now + samples.DAY
    spec = ContainerSpec(
        left.name, "job", samples.IMAGE, str(left / "data"), str(left / "in"), samples.RESOURCES, desk.now, until
    )
    desk.runner.prepare(VERDICT.sign(spec))
    desk.boxes.sweep()
    assert desk.runner.containers == {} and not left.exists()
    desk.jobs.start()
    row = desk.until(JobState.RELEASED)
    assert row.sandbox != left.name and len(desk.charges()) == 1 and len(desk.releases()) == 1
    desk.jobs.stop()


def test_a_pause_ends_a_task_and_a_resume_lets_the_hub_ask_again(desk: Desk, gate: Gate) -> None:
    desk.ask()
    eventually(lambda: gate.asked == 1)
    assert pause.pause(desk.core, desk.boxes, "it_admin") == PauseResult(1, True, True, True)
    assert desk.until(JobState.STOPPED).code is Code.HOSPITAL_PAUSED
    assert list((desk.root / "work").iterdir()) == [] and len(desk.deleted) == 1
    row = next(desk.outbox.follow(lambda: True))
    assert row.hub_code is HubCode.PAUSED and row.envelope is None
    desk.ask(attempt=2)
    assert desk.job(2).state is JobState.REFUSED and desk.job(2).code is Code.HOSPITAL_PAUSED
    pause.resume(desk.core, "it_admin")
    gate.open.set()
    desk.ask(attempt=3)
    desk.until(JobState.RELEASED, attempt=3)
    assert len(desk.charges()) == 1


def test_a_pause_while_the_engine_is_away_does_not_say_that_all_has_ended(desk: Desk, gate: Gate) -> None:
    desk.ask()
    eventually(lambda: gate.asked == 1)
    desk.runner.away = True
    assert pause.pause(desk.core, desk.boxes, "it_admin") == PauseResult(1, False, True, True)
    assert len(desk.runner.containers) == 1
    desk.runner.away = False
    desk.boxes.tidy()
    assert desk.boxes.settled() and desk.runner.containers == {}


@pytest.mark.parametrize("verb", ["prepare", "execute"])
def test_a_gpu_that_this_node_cannot_give_ends_the_job_once_and_tells_the_hub_to_wait(
    desk: Desk, gate: Gate, verb: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither `job_failed`, which would blame the image, nor tried again until the instruction expires."""
    desk.runner.refusals[verb] = Reason(Code.GPU_UNAVAILABLE, "no CDI spec of this engine names GPU-a")
    before = desk.size()
    desk.ask()
    assert desk.until(JobState.FAILED).code is Code.GPU_UNAVAILABLE
    answer = next(desk.outbox.follow(lambda: True))
    assert answer.hub_code is HubCode.NOT_READY and answer.envelope is None
    assert [each.code for each in desk.log(before) if each.action == "job_end"] == ["gpu_unavailable"]
    assert gate.asked == 0 and desk.runner.containers == {} and desk.boxes.settled()
    told = [record for record in caplog.records if "gpu_unavailable" in record.getMessage()]
    assert [record.levelname for record in told] == ["WARNING"] and "cloister check" in told[0].getMessage()
    desk.outbox.delivered(answer.instruction)
    desk.runner.refusals.clear()
    gate.open.set()
    assert desk.ask(attempt=2) is None  # the driver is mended, and the hub asks again
    desk.until(JobState.RELEASED, attempt=2)


@pytest.mark.parametrize(
    ("span", "code"),
    [
        ({"days": 20}, Code.ACCEPTANCE_EXPIRED), ({"days": 10}, Code.RUN_ORDER_EXPIRED),
        ({"hours": 24}, Code.REVOCATION_LIST_STALE), ({"minutes": -10}, Code.CLOCK_WENT_BACK),
    ],
)  # fmt: skip
def test_what_the_clock_ends_is_ended_in_the_middle_of_a_task(
    desk: Desk, gate: Gate, span: dict[str, float], code: Code
) -> None:
    desk.ask()
    eventually(lambda: gate.asked == 1)
    desk.now = later(**span)
    if code is Code.ACCEPTANCE_EXPIRED:
        order = samples.order(run="run-2", nonce="nonce-2")  # every other term is over by then as well
        assert order.expires < desk.now
    desk.watch.look()
    row = desk.until(JobState.STOPPED)
    ended = [each for each in desk.log() if each.action == "permit_end"]
    assert row.code is not None and ended == [Written("permit_end", "run/run-1", "refused", row.code.value)]
    assert row.code in (code, Code.RUN_ORDER_EXPIRED)
    assert desk.runner.containers == {} and list((desk.root / "work").iterdir()) == [] and desk.releases() == []


def test_a_clock_that_went_back_admits_nothing(desk: Desk, gate: Gate) -> None:
    desk.now = later(minutes=-10)
    before = desk.size()
    desk.ask()
    assert desk.job().state is JobState.REFUSED and desk.job().code is Code.CLOCK_WENT_BACK
    assert desk.log(before)[-1] == Written("task_admit", "run-1/1/train/1", "refused", "clock_went_back")
    assert desk.charges() == () and gate.asked == 0 and desk.runner.specs == []
    desk.now = later(minutes=1)
    gate.open.set()
    desk.ask(attempt=2)
    desk.until(JobState.RELEASED, attempt=2)


def test_a_revocation_ends_the_task_the_moment_the_list_comes(desk: Desk, gate: Gate) -> None:
    desk.ask()
    eventually(lambda: gate.asked == 1)
    desk.documents.receive(samples.COMMITTEE.sign(samples.revocations(number=6, permits=("lesions-2026",))))
    assert desk.until(JobState.STOPPED).code is Code.PERMIT_REVOKED
    assert desk.runner.containers == {} and list((desk.root / "work").iterdir()) == []
    desk.ask(attempt=2)
    assert desk.job(2).code is Code.PERMIT_REVOKED and desk.releases() == []


def test_a_list_that_leaves_a_permit_out_does_not_bring_it_back(desk: Desk, gate: Gate) -> None:
    """Of either version, and over a restart of core; only one that names it as restored does."""
    gate.open.set()
    revoke = samples.revocations(number=6, permits=("lesions-2026",))
    desk.documents.receive(samples.COMMITTEE.sign(revoke))
    desk.documents.receive(samples.COMMITTEE.sign(samples.revocations(number=7, permits=())))
    silent = listed(8, samples.revocations(number=7, permits=()))
    desk.documents.receive(samples.COMMITTEE.sign(silent))
    for attempt, heard in ((1, desk.core.heard.revocations), (2, None)):
        desk.core.heard.revocations = heard
        desk.ask(attempt=attempt)
        assert desk.job(attempt).code is Code.PERMIT_REVOKED
    # a list made from another one than ours restores nothing, and that is said
    before = desk.size()
    forked = listed(9, revoke, restored=("lesions-2026",))
    desk.documents.receive(samples.COMMITTEE.sign(forked))
    assert desk.log(before)[0] == Written("document_import", "revocation-list/9", "done", "revocation_list_forked")
    desk.ask(attempt=3)
    assert desk.job(3).code is Code.PERMIT_REVOKED
    desk.documents.receive(samples.COMMITTEE.sign(listed(10, forked, restored=("lesions-2026",))))
    desk.ask(attempt=4)
    desk.until(JobState.RELEASED, attempt=4)


def listed(number: int, last: RevocationList, restored: tuple[str, ...] = ()) -> RevocationListV2:
    issued, sha256 = samples.revocations().issued, hashlib.sha256(canonical.encode(last)).hexdigest()
    return RevocationListV2(number, issued, (), sha256, restored)


def test_what_was_revoked_after_it_was_computed_does_not_leave(desk: Desk, gate: Gate, tmp_path: Path) -> None:
    desk.ask()
    eventually(lambda: gate.asked == 1)
    desk.watch.look = lambda: None  # type: ignore[method-assign]  # nobody ends the container in time
    desk.documents._on_change = lambda: None
    desk.documents.receive(samples.COMMITTEE.sign(samples.revocations(number=6, permits=("lesions-2026",))))
    gate.open.set()
    assert desk.until(JobState.STOPPED, JobState.REFUSED).code is Code.PERMIT_REVOKED
    assert desk.releases() == [] and list((desk.root / "releases").iterdir()) == []


def test_a_document_signed_by_the_wrong_key_is_refused_and_changes_nothing(desk: Desk) -> None:
    before = desk.size()
    forged = samples.HUB.sign(replace(samples.permit(), permit="forged", issuer=samples.HUB.key_id))
    with pytest.raises(Denied):
        desk.documents.receive(forged)
    assert [(each.action, each.verdict, each.code) for each in desk.log(before)] == [
        ("document_import", "refused", "untrusted_key")
    ]
    with desk.core.store.read() as snapshot:
        assert snapshot.permit("forged", 2) is None


def test_two_links_that_look_at_once_find_one_whole_spool(desk: Desk, gate: Gate) -> None:
    """A link that lost its stream asks again while core still serves the old one."""
    gate.open.set()
    desk.ask()
    desk.until(JobState.RELEASED)
    found: list[str | None] = []
    streams = [
        threading.Thread(target=lambda: found.append(next(desk.outbox.follow(lambda: True)).folder)) for _ in "abcd"
    ]
    for stream in streams:
        stream.start()
    for stream in streams:
        stream.join(5)
    assert len(found) == 4 and len(set(found)) == 1
    stored = {path.name for path in (desk.root / "releases" / "run-1" / "1-train").iterdir()}
    assert {path.name for path in (desk.root / "spool" / str(found[0])).iterdir()} == stored != set()


def test_evaluation_and_training_have_containers_of_their_own(desk: Desk, gate: Gate) -> None:
    gate.open.set()
    desk.ask(round=0, task=Kind.EVALUATE)
    eventually(lambda: desk.job(1, 0, Kind.EVALUATE).state is JobState.RELEASED)
    desk.ask()
    desk.until(JobState.RELEASED)
    assert len({spec.job for spec in desk.runner.specs}) == 2


def test_a_name_that_another_project_has_is_refused_before_anything_is_taken_in(desk: Desk) -> None:
    order = IngestOrder("order-1", samples.SITE, "another", "images", "/source", "eucaim", None, (), 0.2)
    before = desk.size()
    with pytest.raises(UsageFault, match="another project"):
        Imports(desk.core, "1").give(lambda _: order, "data_steward")
    assert desk.size() == before


def test_a_job_that_raises_is_answered_with_the_class_and_no_text(tmp_path: Path) -> None:
    def raising(task: Mapping[str, Any], model: bytes) -> Mapping[str, bytes]:
        raise ValueError("Mrs. Smith, born 4 July 1950")

    desk = Desk(tmp_path, raising)
    desk.jobs.start()
    desk.ask()
    row = desk.until(JobState.FAILED)
    assert row.code is Code.RAISED_VALUE_ERROR
    answer = next(desk.outbox.follow(lambda: True))
    assert answer.hub_code is HubCode.RAISED_VALUE_ERROR and answer.envelope is None
    ended = desk.log()[-1]
    assert (ended.action, ended.verdict, ended.code) == ("job_end", "failed", "raised_value_error")
    assert "Smith" not in repr(desk.log())
    desk.jobs.stop()
    desk.core.store.close()


@pytest.mark.parametrize("run", ["lung-2026.11.26.1.2", "2026.11.26.1.2", "lung_v2.25.1"])
def test_a_run_named_with_a_date_is_kept_admitted_released_and_written_down(desk: Desk, gate: Gate, run: str) -> None:
    gate.open.set()
    before = desk.size()
    assert desk.documents.receive(samples.RESEARCHER.sign(samples.order(run=run)))
    assert desk.ask(run=run) is None
    eventually(lambda: [each for each in desk.releases() if each.startswith(f"{run}/1/train/1@")])
    assert Written("document_import", f"run-order/{run}", "done", "") in desk.log(before)
    assert Written("task_admit", f"{run}/1/train/1", "allowed", "") in desk.log(before)


def test_the_largest_numbers_a_hub_can_sign_are_answered_and_written_down(desk: Desk, gate: Gate) -> None:
    before, largest = desk.size(), (1 << 53) - 1
    assert desk.ask(round=largest, attempt=largest) is HubCode.REFUSED_INSTRUCTION
    refused = desk.log(before)[-1]
    assert (refused.about, refused.verdict) == (f"run-1/{largest}/train/{largest}", "refused")
    gate.open.set()
    assert desk.ask(attempt=largest) is None
    assert eventually(desk.releases)[0].startswith(f"run-1/1/train/{largest}@")


def test_an_instruction_that_meets_an_error_nobody_foresaw_is_answered_and_written_down(desk: Desk) -> None:
    """Somebody took the folder of the jobs away: this instruction ends with a word, and the next one is served."""
    (desk.root / "jobs").rename(desk.root / "gone")
    before = desk.size()
    assert desk.ask() is HubCode.INTERNAL
    digest = hashlib.sha256(samples.HUB.sign(samples.instruction()).encode()).hexdigest()
    assert desk.log(before) == [Written("instruction_receive", f"document/{digest}", "refused", "internal")]
    assert not desk.charges()
    (desk.root / "gone").rename(desk.root / "jobs")
    assert desk.ask(attempt=2) is None


def test_a_document_that_meets_an_error_nobody_foresaw_is_refused_and_written_down(desk: Desk) -> None:
    times = iter([ValueError("a clock nobody foresaw")])

    def clock() -> datetime:
        for error in times:
            raise error
        return desk.now

    documents = Documents(replace(desk.core, clock=clock), lambda: None)
    text, before = samples.RESEARCHER.sign(samples.order(run="run-2")), desk.size()
    with pytest.raises(Denied) as denied:
        documents.receive(text)
    assert denied.value.reasons[0].code is Code.INTERNAL
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert desk.log(before) == [Written("document_import", f"document/{digest}", "refused", "internal")]
    assert documents.receive(text), "nothing of it was kept, so it may come again"
