"""A local analysis from the order to the file in somebody's folder, and every way it must not get there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mediator.airlock.review import FileState
from mediator.analysis import AnalysisRules
from mediator.audit import Action, Verdict
from mediator.errors import Code, Denied, HubCode, Malformed, NotNow, UsageFault
from mediator.jobs import JobState
from mediator.types import Kind
from node.core.airlock import airlock, analyse
from node.core.audit import epochs
from node.core.context import AirlockSettings, event
from node.core.refusals import Refusals
from node.core.store.audit_log import AuditLog
from node.core.tasks import admit_task, pause
from node.core.tasks.overview import run_account
from tests.mediator import samples
from tests.mediator.analyses import FREQUENCY, GRANT, INSTRUCT, MAGNITUDE, RULES, frequency, magnitude
from tests.node.core.analysis_desk import ADMIN, ANNA, BERT, STEWARD, TABLE, AnalysisDesk, leaves, pseudonym
from tests.node.core.desk import Written, eventually
from tests.sim.runner import Behaviour

Make = Callable[..., AnalysisDesk]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[AnalysisDesk] = []

    def build(behave: Behaviour = TABLE, **changes: Any) -> AnalysisDesk:
        made.append(AnalysisDesk(tmp_path / str(len(made)), behave, **changes))
        made[-1].jobs.start()
        return made[-1]

    yield build
    for each in made:
        each.jobs.stop()


@pytest.fixture
def desk(make: Make) -> AnalysisDesk:
    return make()


def refused(code: Code, act: Callable[[], object]) -> None:
    with pytest.raises(Denied) as denied:
        act()
    assert denied.value.reasons[0].code is code


# --- what waits ---------------------------------------------------------------------------------------------


def test_what_waits_does_not_leave_once_a_budget_protects_its_data(desk: AnalysisDesk) -> None:
    """Gate 1 let it in when no permit with noise was accepted for the dataset."""
    assert desk.analysed().state is JobState.HELD
    row = desk.file()
    assert desk.review() is FileState.APPROVED
    granted = samples.permit(permit="p-2", permit_version=1, supersedes=None, **samples.PRIVATE)
    signed = samples.signed_permit(granted)
    desk.documents.receive(signed.text)
    desk.documents.receive(samples.acceptance(signed).text, by="data_steward")
    refused(Code.DATASET_PROTECTED, lambda: airlock.take(desk.core, row.file, STEWARD))


def test_a_new_epoch_of_the_log_destroys_nothing_that_waits(desk: AnalysisDesk, tmp_path: Path) -> None:
    """Every permit is to be accepted anew, and until it is, files stay where they are."""
    desk.analysed()
    row = desk.file()
    desk.review()
    (tmp_path / "audit").mkdir()
    written = AuditLog(desk.core.store, tmp_path / "audit", tmp_path / "witness.jsonl")
    written.export()
    desk.now += timedelta(minutes=1)
    epochs.open_epoch(desk.core, written, "it_admin", restored=True)
    airlock.tend(desk.core)
    assert desk.file().state is FileState.APPROVED
    refused(Code.PERMIT_MISSING, lambda: airlock.take(desk.core, row.file, STEWARD))


# --- the whole way ------------------------------------------------------------------------------------------


def test_an_analysis_runs_without_a_hub_and_its_table_leaves_after_a_persons_yes(desk: AnalysisDesk) -> None:
    assert desk.analysed().state is JobState.HELD
    row = desk.file()
    assert (row.state, row.code, row.needed, row.name) == (FileState.CHECKED, None, 1, "a.csv")
    refused(Code.REVIEW_MISMATCH, lambda: airlock.take(desk.core, row.file, STEWARD))
    shown = airlock.show(desk.core, row.file, STEWARD)
    assert shown.content == FREQUENCY and '"outcome":"pass"' in shown.record
    assert desk.review() is FileState.APPROVED
    fetched = airlock.take(desk.core, row.file, STEWARD)
    assert fetched.content == FREQUENCY and [each.subject for each in fetched.reviews] == ["anna"]
    assert airlock.take(desk.core, row.file, STEWARD).content == FREQUENCY, "until somebody says that it arrived"
    airlock.taken(desk.core, row.file, STEWARD)
    airlock.taken(desk.core, row.file, STEWARD)
    assert desk.file().state is FileState.RELEASED and desk.content() is None
    refused(Code.REVIEW_MISMATCH, lambda: airlock.take(desk.core, row.file, STEWARD))


def test_every_step_stands_in_the_log_and_no_content_does(desk: AnalysisDesk) -> None:
    desk.analysed()
    row = desk.file()
    airlock.show(desk.core, row.file, STEWARD)
    desk.review()
    airlock.take(desk.core, row.file, STEWARD)
    airlock.taken(desk.core, row.file, STEWARD)
    steps = [each for each in desk.log() if each.action.startswith(("airlock", "access")) or "analyse" in each.about]
    assert [(each.action, each.verdict) for each in steps if not each.action.startswith("job_")] == [
        ("instruction_receive", "done"), ("task_admit", "allowed"), ("ledger_charge", "done"),
        ("airlock_check", "allowed"), ("access", "done"), ("airlock_review", "allowed"),
        ("airlock_release", "allowed"), ("airlock_release", "done"), ("airlock_delete", "done"),
    ]  # fmt: skip
    assert Written("airlock_release", f"{row.file}@{row.content_sha256}", "done", "") in steps
    with desk.core.store.read() as snapshot:
        lines = "".join(snapshot.audit_lines(0, 1000))
    assert "a.csv" not in lines and "young" not in lines and "anna" not in lines
    assert '"actor":"it_admin"' in lines and '"actor":"data_steward"' in lines


def test_the_hub_hears_nothing_of_an_analysis(desk: AnalysisDesk, make: Make) -> None:
    desk.analysed()
    failing = make(leaves({}))
    assert failing.analysed().state is JobState.REFUSED
    for each in (desk, failing):
        with each.core.store.read() as snapshot:
            assert snapshot.outgoing() == ()
        assert list((each.root / "spool").iterdir()) == list((each.root / "releases").iterdir()) == []


def test_a_run_that_was_analysed_is_complete_and_released_nothing_to_a_hub(desk: AnalysisDesk) -> None:
    desk.analysed()
    with desk.core.store.read() as snapshot:
        (order,) = snapshot.run_orders()
        account = run_account(snapshot, order)
    assert (account.state, account.rounds_charged, account.releases) == ("complete", 1, 0)


def test_the_container_is_gone_and_the_output_too(desk: AnalysisDesk) -> None:
    desk.analysed()
    eventually(lambda: desk.runner.containers == {} and not list((desk.root / "work").iterdir()))
    eventually(lambda: not list((desk.root / "jobs").iterdir()))
    assert len(desk.deleted) == 1 and desk.deleted[0].startswith("analyse-")


# --- starting one -------------------------------------------------------------------------------------------


def test_one_order_gives_one_set_of_files(desk: AnalysisDesk) -> None:
    desk.analysed()
    before = desk.size()
    refused(Code.ROUND_ALREADY_SERVED, desk.start)
    assert [each.action for each in desk.log(before)] == ["instruction_receive", "task_admit"]
    assert len(desk.files()) == 1 and len(desk.charges()) == 1


def test_orders_for_the_same_run_or_beyond_the_permits_number_are_refused(desk: AnalysisDesk) -> None:
    """Every further look at the same patients is one more number to subtract."""
    refused(Code.DOCUMENT_CONFLICT, lambda: desk.order("run-1", nonce="another"))
    desk.analysed()
    for run in ("run-2", "run-3"):
        desk.order(run, nonce=run)
    assert desk.analysed("run-2").state is JobState.HELD
    refused(Code.ROUNDS_EXHAUSTED, lambda: desk.start("run-3"))
    assert len(desk.files()) == 2


def test_a_run_without_an_order_is_not_started(desk: AnalysisDesk) -> None:
    before = desk.size()
    refused(Code.RUN_ORDER_MISSING, lambda: desk.start("run-9"))
    assert desk.size() == before


def test_an_analysis_at_work_is_not_started_again(make: Make) -> None:
    desk = make(lambda _task, _model: {})
    desk.runner.away = True
    desk.start()
    with pytest.raises(NotNow, match="at work"):
        desk.start()
    assert len(desk.charges()) == 1


def test_an_analysis_that_failed_may_be_started_again_and_is_charged_once(make: Make) -> None:
    desk = make(leaves({}))
    assert desk.analysed().code is Code.FILE_NOT_PERMITTED
    desk.runner._behaviours[samples.IMAGE] = TABLE  # type: ignore[index]
    assert desk.analysed().state is JobState.HELD and len(desk.charges()) == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"kinds": (Kind.TRAIN,), "analysis": None}, Code.KIND_NOT_PERMITTED),
        ({"minimum_studies": 201}, Code.TOO_FEW_STUDIES),
        ({"byte_budget": 10}, Code.BYTES_EXHAUSTED),
    ],
)  # fmt: skip
def test_gate_1_is_asked_and_its_no_is_kept(make: Make, change: dict[str, Any], code: Code) -> None:
    desk = make(**change)
    with pytest.raises(Denied) as denied:
        desk.start()
    assert code in {reason.code for reason in denied.value.reasons}
    assert [each.verdict for each in desk.log() if each.action == "task_admit"] == ["refused"]
    assert desk.runner.specs == [] and desk.charges() == () and desk.files() == ()


def test_a_paused_hospital_starts_nothing(desk: AnalysisDesk) -> None:
    pause.pause(desk.core, desk.boxes, ADMIN)
    refused(Code.HOSPITAL_PAUSED, desk.start)
    pause.resume(desk.core, ADMIN)
    assert desk.analysed().state is JobState.HELD


def test_a_hub_that_asks_for_an_analysis_is_refused(desk: AnalysisDesk) -> None:
    before = desk.size()
    text = samples.HUB.sign(samples.instruction(**INSTRUCT))
    assert admit_task.receive(desk.core, text, b"context", [b""]) is HubCode.REFUSED_INSTRUCTION
    assert [(each.action, each.code) for each in desk.log(before)] == [("instruction_receive", "kind_not_permitted")]
    assert desk.files() == () and desk.runner.specs == []


def test_an_instruction_that_the_node_signed_for_a_training_is_refused(desk: AnalysisDesk) -> None:
    text = desk.core.keys.verdict.sign(samples.instruction())
    refused(Code.UNTRUSTED_KEY, lambda: admit_task.ask_again(desk.core, text, samples.MODEL))
    assert admit_task.receive(desk.core, text, b"", [samples.MODEL]) is HubCode.REFUSED_INSTRUCTION


# --- what the rules refuse ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behave", "code"),
    [
        (leaves({"a.csv": FREQUENCY.replace(b"15", b"9")}, frequency()), Code.COUNT_BELOW_THRESHOLD),
        (leaves({"a.csv": FREQUENCY.replace(b"m,young,15\n", b"total,total,135\n")}, frequency()), Code.DIFFERENCING),
        (leaves({"b.csv": MAGNITUDE.replace(b"80,70", b"900,70")}, magnitude()), Code.DOMINANCE),
        (leaves({"a.csv": b"\x89PNG\r\n\x1a\n" + bytes(99)}, frequency()), Code.FILE_NOT_PERMITTED),
        (leaves({"a.csv": FREQUENCY.replace(b"patients", b"p=1")}, frequency()), Code.TABLE_NOT_PERMITTED),
        (leaves({"a.csv": FREQUENCY.replace(b"f,young", b"f," + pseudonym(3).encode())}, frequency()),
         Code.IDENTIFIER_FOUND),
        (leaves({"a.csv": f"sex,age,{pseudonym(-4)}\nf,young,20\n".encode()}, frequency()), Code.IDENTIFIER_FOUND),
        (leaves({"a.csv": b"sex,age,patients\n" + b"f,young,20\n" * 9000}, frequency()), Code.TABLE_NOT_PERMITTED),
    ],
)  # fmt: skip
def test_a_file_that_breaks_a_rule_is_refused_deleted_and_shown_to_nobody(
    make: Make, behave: Behaviour, code: Code
) -> None:
    desk = make(behave)
    assert desk.analysed().state is JobState.HELD
    row = desk.file()
    assert (row.state, row.code) == (FileState.REFUSED, code) and desk.content() is None
    assert airlock.show(desk.core, row.file, STEWARD).content == b""
    refused(Code.REVIEW_MISMATCH, desk.review)
    refused(Code.REVIEW_MISMATCH, lambda: airlock.take(desk.core, row.file, STEWARD))
    assert ("airlock_check", code.value) in [(each.action, each.code) for each in desk.log()]


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"outputs.json": b"{}"}, Code.FILE_NOT_PERMITTED), ({"a.csv": FREQUENCY}, Code.FILE_MISSING),
        ({"metrics.json": b"{}", "model.safetensors": b"x"}, Code.FILE_MISSING),
    ],
)  # fmt: skip
def test_an_output_that_declares_nothing_ends_the_job(make: Make, files: dict[str, bytes], code: Code) -> None:
    desk = make(lambda _task, _model: files)
    row = desk.analysed()
    assert (row.state, row.code) == (JobState.REFUSED, code) and desk.files() == ()


def test_a_hospitals_own_threshold_is_a_floor(make: Make) -> None:
    strict = replace(RULES, threshold=10)
    desk = make(analysis=strict)
    desk.jobs.stop()
    AnalysisDesk.airlock, before = replace(AnalysisDesk.airlock, threshold=16, reviewers=2), AnalysisDesk.airlock
    try:
        floor = make(analysis=strict)
        floor.analysed()
        assert floor.file().code is Code.COUNT_BELOW_THRESHOLD and floor.file().needed == 2
    finally:
        AnalysisDesk.airlock = before


# --- reviews ------------------------------------------------------------------------------------------------


def rules(**changes: Any) -> AnalysisRules:
    return replace(RULES, **changes)


def test_the_requester_does_not_review_their_own_file(desk: AnalysisDesk) -> None:
    """The hospital has, by mistake or by trick, named the researcher's key among its reviewers."""
    desk.analysed()
    before = desk.size()
    refused(Code.REVIEWER_NOT_PERMITTED, lambda: desk.review(samples.RESEARCHER))
    assert [(each.action, each.verdict) for each in desk.log(before)] == [("airlock_review", "refused")]
    assert desk.file().state is FileState.CHECKED


def test_where_two_must_agree_one_person_is_not_two(make: Make) -> None:
    desk = make(analysis=rules(reviewers=2))
    desk.analysed()
    assert desk.review() is FileState.WAITING
    later = desk.draft(issued=desk.now + timedelta(seconds=1))
    refused(Code.REVIEWER_NOT_PERMITTED, lambda: airlock.take_review(desk.core, ANNA.sign(later), STEWARD))
    refused(Code.REVIEW_MISMATCH, lambda: airlock.take(desk.core, desk.file().file, STEWARD))
    assert desk.file().state is FileState.WAITING
    assert desk.review(BERT) is FileState.APPROVED


def test_a_review_sent_again_counts_once(make: Make) -> None:
    desk = make(analysis=rules(reviewers=2))
    desk.analysed()
    text = ANNA.sign(desk.draft())
    airlock.take_review(desk.core, text, STEWARD)
    with pytest.raises(Denied) as denied:
        airlock.take_review(desk.core, text, STEWARD)
    assert Code.REVIEW_REPLAYED in {reason.code for reason in denied.value.reasons}
    assert desk.file().state is FileState.WAITING


def test_a_review_of_a_file_as_it_was_is_no_review_of_it_as_it_is(desk: AnalysisDesk) -> None:
    desk.analysed()
    for change in ({"content_sha256": "e" * 64}, {"record_sha256": "e" * 64}, {"site": "hospital-b"}):
        refused(Code.REVIEW_MISMATCH, lambda change=change: desk.review(**change))  # type: ignore[misc]
    refused(Code.REVIEW_MISMATCH, lambda: desk.review(file="file-0"))
    refused(Code.REVIEW_REPLAYED, lambda: desk.review(issued=desk.now - timedelta(hours=2)))
    assert desk.file().state is FileState.CHECKED


def test_a_review_by_a_stranger_or_of_another_kind_is_refused(desk: AnalysisDesk) -> None:
    desk.analysed()
    refused(Code.UNTRUSTED_KEY, lambda: desk.review(samples.STRANGER))
    refused(Code.UNTRUSTED_KEY, lambda: desk.review(samples.STEWARD))
    assert desk.file().state is FileState.CHECKED


def test_what_the_staff_is_refused_all_day_is_counted_and_hides_nothing_else(desk: AnalysisDesk) -> None:
    desk.analysed()
    core = replace(desk.core, refusals=Refusals(3))
    waiting, before = desk.file().file, desk.size()
    for number in range(5):
        with pytest.raises(Malformed):
            airlock.take_review(core, f"junk {number}", STEWARD)
        refused(Code.REVIEW_MISMATCH, lambda: airlock.take(core, waiting, STEWARD))
        admit_task.receive(core, samples.HUB.sign(samples.instruction(permit="nobodys", attempt=number + 1)), b"", [])
    assert [each.action for each in desk.log(before)].count("airlock_review") == 3
    assert [each.action for each in desk.log(before)].count("airlock_release") == 3
    desk.order("run-2", nonce="run-2")
    desk.core.switch.turn_on()
    before = desk.size()
    with pytest.raises(Denied):
        analyse.start(core, "run-2", ADMIN)
    assert [each.code for each in desk.log(before)][-1] == "hospital_paused"


@pytest.mark.parametrize("after", [FileState.CHECKED, FileState.APPROVED])
def test_a_no_ends_a_file_whatever_was_said_before(desk: AnalysisDesk, after: FileState) -> None:
    desk.analysed()
    if after is FileState.APPROVED:
        desk.review()
    assert desk.review(BERT, decision="refuse", why="small_groups") is FileState.REFUSED
    assert desk.content() is None and desk.file().code is Code.REVIEW_REFUSED
    assert [each.action for each in desk.log()][-2:] == ["airlock_review", "airlock_delete"]
    refused(Code.REVIEW_MISMATCH, lambda: desk.review(ANNA, issued=desk.now + timedelta(seconds=1)))


def test_without_named_reviewers_nothing_leaves(make: Make) -> None:
    AnalysisDesk.airlock, before = AirlockSettings(), AnalysisDesk.airlock
    try:
        desk = make()
        desk.analysed()
        refused(Code.UNTRUSTED_KEY, desk.review)
        assert desk.file().state is FileState.CHECKED
    finally:
        AnalysisDesk.airlock = before


def test_nothing_is_kept_of_data_that_was_withdrawn_a_moment_ago(desk: AnalysisDesk) -> None:
    """Its manifest goes with it, which names whose pseudonyms must not stand in a table."""
    row = desk.analysed()
    admitted: Any = SimpleNamespace(
        permit=samples.enforced(**GRANT),
        instruction=samples.instruction(),
        dataset_version=samples.VERSION,
        split="train",
    )
    with desk.core.store.transaction(desk.now) as tx:
        gone = event(Action.DATASET_WITHDRAW, samples.VERSION, Verdict.DONE)
        tx.withdraw_dataset_version(samples.VERSION, event=gone)
    refused(Code.DATASET_MISSING, lambda: airlock.hold(desk.core, row, admitted, []))


# --- the door, and the watchdog -----------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["pause", "revocation", "withdrawal", "stale"])
def test_what_ended_since_the_yes_keeps_the_file_inside(desk: AnalysisDesk, what: str) -> None:
    desk.analysed()
    desk.review()
    if what == "pause":
        pause.pause(desk.core, desk.boxes, ADMIN)
    elif what == "revocation":
        desk.documents.receive(samples.COMMITTEE.sign(samples.revocations(number=6, permits=("lesions-2026",))))
    elif what == "withdrawal":
        with desk.core.store.transaction(desk.now) as tx:
            gone = event(Action.DATASET_WITHDRAW, samples.VERSION, Verdict.DONE)
            tx.withdraw_dataset_version(samples.VERSION, event=gone)
    else:
        desk.now += timedelta(days=2)
    code = {
        "pause": Code.HOSPITAL_PAUSED, "revocation": Code.PERMIT_REVOKED, "withdrawal": Code.DATASET_MISSING,
        "stale": Code.REVOCATION_LIST_STALE,
    }[what]  # fmt: skip
    refused(code, lambda: airlock.take(desk.core, desk.file().file, STEWARD))
    assert desk.log()[-1] == Written("airlock_release", desk.file().file, "refused", code.value)
    airlock.tend(desk.core)
    assert (desk.content() is None) is (what == "revocation"), "a permit that is over takes its files with it"


def test_nothing_sits_forgotten(desk: AnalysisDesk) -> None:
    desk.analysed()
    with desk.core.store.read() as snapshot:
        assert airlock.waits(desk.core, snapshot) == (1, 0)
    desk.now += timedelta(days=3)
    with desk.core.store.read() as snapshot:
        assert airlock.waits(desk.core, snapshot) == (1, 1)
    airlock.tend(desk.core)
    assert desk.file().state is FileState.CHECKED and desk.content()
    desk.now += timedelta(days=3)
    airlock.tend(desk.core)
    airlock.tend(desk.core)
    row = desk.file()
    assert (row.state, row.code) == (FileState.EXPIRED, Code.REVIEW_OVERDUE) and desk.content() is None
    deleted = [each for each in desk.log() if each.action == "airlock_delete"]
    assert deleted == [Written("airlock_delete", row.file, "done", "review_overdue")]
    with desk.core.store.read() as snapshot:
        assert airlock.waits(desk.core, snapshot) == (0, 0)


def test_an_approved_file_that_nobody_fetches_is_deleted_too(desk: AnalysisDesk) -> None:
    desk.analysed()
    desk.review()
    desk.now += timedelta(days=6)
    airlock.tend(desk.core)
    assert desk.file().state is FileState.EXPIRED and desk.content() is None


def test_a_core_killed_before_the_rules_were_asked_asks_them_later(tmp_path: Path) -> None:
    desk = AnalysisDesk(tmp_path)
    analyse.start(desk.core, "run-1", ADMIN)
    desk.jobs.start()
    eventually(desk.files)
    desk.jobs.stop()
    assert desk.file().state is FileState.CHECKED and len(desk.charges()) == 1


def test_a_file_that_is_not_there(desk: AnalysisDesk) -> None:
    for act in (airlock.show, airlock.take, airlock.taken):
        with pytest.raises(UsageFault, match="no such file"):
            act(desk.core, "file-0", STEWARD)
