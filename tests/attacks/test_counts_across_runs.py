"""One patient as the difference of two truthful counts: in two runs, two tables, two rounds, two names of one group.

A real core with its database; the job, which the attacker wrote, is played: what it leaves is the attack.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text as sql

from mediator import canonical
from mediator.airlock.review import FileState, Review
from mediator.audit import Action, Verdict
from mediator.errors import Code, Denied
from mediator.jobs import JobState
from mediator.permit import schema_sha256
from mediator.signatures import SigningKey
from mediator.types import Kind, SiteDatasets, Study
from node.core.airlock import airlock
from node.core.context import event
from node.core.records import AirlockRow
from tests.mediator import samples
from tests.mediator.analyses import GRANT, declared
from tests.node.core.analysis_desk import ANNA, BERT, STEWARD, AnalysisDesk, leaves, pseudonym
from tests.node.core.desk import Desk, eventually, manifest
from tests.sim.runner import Behaviour

FORTY = b"sex,patients\nf,40\nm,100\n"
FORTY_BUT_ONE = b"sex,patients\nf,39\nm,100\n"
RENAMED = {
    "another label": (b"stage,patients\n1,39\n2,120\n", ["stage"], "patients"),
    "another column": (b"sex,n\nf,39\nm,80\n", ["sex"], "n"),
    "no label": (b"patients\n39\n", [], "patients"),
    "both": (b"stage,n\n1,120\n2,41\n", ["stage"], "n"),
}  # fmt: skip


def table(content: bytes, labels: list[str], count: str = "patients", name: str = "a.csv") -> Behaviour:
    return leaves({name: content}, declared(name, "frequency_table", labels=labels, count=count))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[AnalysisDesk]:
    made = AnalysisDesk(
        tmp_path, table(FORTY, ["sex"]), maximum_rounds=9,
        datasets=(SiteDatasets(samples.SITE, (samples.VERSION, samples.OTHER_VERSION)),),
    )  # fmt: skip
    made.jobs.start()
    yield made
    made.jobs.stop()
    made.core.store.close()


def analysed(desk: AnalysisDesk, run: str, behave: Behaviour) -> AirlockRow:
    """One more run of the analysis, and the file that came out of it."""
    desk.runner._behaviours[samples.IMAGE] = behave  # type: ignore[index]
    if run != "run-1":
        desk.order(run, nonce=run)
    assert desk.analysed(run).state is JobState.HELD
    (found,) = [row for row in desk.files() if row.run == run]
    return found


def reviewed(desk: Desk, row: AirlockRow, key: SigningKey = ANNA, **changes: Any) -> FileState:
    said = Review(samples.SITE, row.file, row.content_sha256, row.record_sha256, "approve", "safe", desk.now)
    return airlock.take_review(desk.core, key.sign(replace(said, **changes)), STEWARD)


def leaves_for_good(desk: Desk, row: AirlockRow) -> None:
    assert reviewed(desk, row) is FileState.APPROVED
    airlock.take(desk.core, row.file, STEWARD)
    airlock.taken(desk.core, row.file, STEWARD)


def found_by(desk: Desk, row: AirlockRow, rule: str = "earlier") -> list[tuple[str, int]]:
    with desk.core.store.read() as snapshot:
        kept = snapshot.airlock_file(row.file)
    assert kept is not None
    return [(each["result"], each["minded"]) for each in json.loads(kept.record)["findings"] if each["rule"] == rule]


TWO_CUTS = b"sex,age,patients\n" + b"".join(
    f"{sex},{age},{number}\n".encode()
    for (sex, age), number in {
        ("f", "young"): 13, ("f", "middle"): 13, ("f", "old"): 13, ("m", "young"): 70,
        ("m", "middle"): 15, ("m", "old"): 65,
    }.items()
)  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ((FORTY, ["sex"]), (b"stage,patients\n1,65\n2,74\n", ["stage"]), 1),  # 140 people, and 139
        ((FORTY, ["sex"]), (TWO_CUTS, ["sex", "age"]), 1),  # 40 women, and three ages of 13
        ((b"patients\n140\n", []), (b"stage,n\n1,70\n2,71\n", ["stage"], "n"), 1),
        ((b"patients\n140\n", []), (b"sex,patients\nf,40\nm,100\n", ["sex"]), 0),  # it adds up to what left
    ],
)
def test_what_can_be_added_up_from_a_table_counts_as_shown_in_it(
    desk: AnalysisDesk, first: tuple[Any, ...], second: tuple[Any, ...], found: int
) -> None:
    leaves_for_good(desk, analysed(desk, "run-1", table(*first)))
    row = analysed(desk, "run-2", table(*second))
    assert row.state is FileState.CHECKED and found_by(desk, row) == [("review" if found else "pass", found)]
    if found:
        (pair,) = airlock.show(desk.core, row.file, STEWARD).near
        assert pair.difference == 1 and pair.here.over


@pytest.mark.parametrize("waits", [True, False])
def test_the_same_group_with_another_number_does_not_leave(desk: AnalysisDesk, waits: bool) -> None:
    first = analysed(desk, "run-1", table(FORTY, ["sex"]))
    if not waits:
        leaves_for_good(desk, first)
    before = desk.size()
    second = analysed(desk, "run-2", table(FORTY_BUT_ONE, ["sex"]))
    assert (second.state, second.code) == (FileState.REFUSED, Code.DIFFERENCING)
    assert found_by(desk, second) == [("fail", 2)], "the women, and the sum"
    checked = [(each.verdict, each.code) for each in desk.log(before) if each.action == "airlock_check"]
    assert checked == [("refused", "differencing")]
    with desk.core.store.read() as snapshot:
        assert [row.source for row in snapshot.shown_counts("lesions-2026")] == [first.file]


@pytest.mark.parametrize("how", RENAMED)
def test_a_group_renamed_leaves_only_by_a_person_who_saw_both_numbers(desk: AnalysisDesk, how: str) -> None:
    first = analysed(desk, "run-1", table(FORTY, ["sex"]))
    leaves_for_good(desk, first)
    second = analysed(desk, "run-2", table(*RENAMED[how]))
    assert second.state is FileState.CHECKED and found_by(desk, second) == [("review", 1)]
    with pytest.raises(Denied):
        airlock.take(desk.core, second.file, STEWARD)
    shown = airlock.show(desk.core, second.file, STEWARD)
    assert shown.line.outcome == "review"
    (pair,) = shown.near
    assert {pair.here.count, pair.earlier.count} in ({39, 40}, {41, 40})
    assert (pair.name, pair.run, pair.left) == ("a.csv", "run-1", True)
    assert "near" not in json.loads(second.record), "a record leaves with its file, and holds no value"
    assert reviewed(desk, second) is FileState.APPROVED
    taken = airlock.take(desk.core, second.file, STEWARD)
    assert taken.near == (), "who takes it is not told what else waits here"
    assert '"rule":"earlier"' in taken.record and '"result":"review"' in taken.record
    assert taken.reviews[0].subject == "anna" and taken.record_sha256 == second.record_sha256


def test_two_tables_of_one_run_are_held_against_one_another(desk: AnalysisDesk) -> None:
    one = declared("a.csv", "frequency_table", labels=["sex"])
    for number, (other, labels, result) in enumerate(
        [(b"stage,patients\n1,39\n2,120\n", ["stage"], "review"), (b"sex,patients\nf,39\nm,101\n", ["sex"], "fail")]
    ):
        two = declared("b.csv", "frequency_table", labels=labels)
        desk.runner._behaviours[samples.IMAGE] = leaves({"a.csv": FORTY, "b.csv": other}, one, two)  # type: ignore[index]
        if number:
            desk.order("run-2", nonce="run-2")
        desk.analysed("run-2" if number else "run-1")
        (found,) = [row for row in desk.files() if row.name == "b.csv" and row.run == ("run-2" if number else "run-1")]
        assert json.loads(found.record)["outcome"] == result
        assert found_by(desk, found)[0][0] == result


def test_the_same_table_of_the_same_people_leaves_again(desk: AnalysisDesk) -> None:
    leaves_for_good(desk, analysed(desk, "run-1", table(FORTY, ["sex"])))
    again = analysed(desk, "run-2", table(FORTY, ["sex"]))
    assert found_by(desk, again) == [("pass", 0)] and airlock.show(desk.core, again.file, STEWARD).near == ()
    leaves_for_good(desk, again)


def test_a_number_that_was_refused_is_forgotten_and_one_that_was_handed_out_never_is(desk: AnalysisDesk) -> None:
    first = analysed(desk, "run-1", table(FORTY, ["sex"]))
    assert reviewed(desk, first, BERT, decision="refuse", why="small_groups") is FileState.REFUSED
    second = analysed(desk, "run-2", table(FORTY_BUT_ONE, ["sex"]))
    assert found_by(desk, second) == [("pass", 0)], "nobody outside has the other number"
    reviewed(desk, second)
    airlock.take(desk.core, second.file, STEWARD)  # the command that fetched it died before it could say so
    assert reviewed(desk, second, BERT, decision="refuse", why="unclear") is FileState.REFUSED
    third = analysed(desk, "run-3", table(*RENAMED["no label"]))
    assert found_by(desk, third) == [("review", 1)]


def test_another_version_of_the_data_tells_nobody_who_came(desk: AnalysisDesk) -> None:
    """One more woman in the next version: the difference of two truthful tables of two versions."""
    leaves_for_good(desk, analysed(desk, "run-1", table(FORTY, ["sex"])))
    studies = tuple(Study(pseudonym(n), pseudonym(-n - 1), "train", f"studies/{pseudonym(n)}", 1) for n in range(201))
    version = replace(
        manifest(), studies=studies, counts={"train": 201, "test": 0}, dataset_version=samples.OTHER_VERSION,
        created=samples.NOW, supersedes=samples.VERSION,
    )  # fmt: skip
    (desk.root / "datasets" / "lesions" / "b").mkdir(parents=True)
    (desk.root / "datasets" / "lesions" / "b" / "manifest.json").write_bytes(canonical.encode(version))
    with desk.core.store.transaction(desk.now) as tx:
        published = event(Action.DATASET_PUBLISH, samples.OTHER_VERSION, Verdict.DONE)
        tx.add_dataset_version(version, "e" * 64, "lesions/b", event=published)
    second = analysed(desk, "run-2", table(b"sex,patients\nf,41\nm,100\n", ["sex"]))
    assert found_by(desk, second) == [("review", 2)]
    assert not airlock.show(desk.core, second.file, STEWARD).near[0].same_group


def test_the_next_version_of_a_permit_is_the_same_permit(desk: AnalysisDesk) -> None:
    leaves_for_good(desk, analysed(desk, "run-1", table(FORTY, ["sex"])))
    granted = samples.permit(**{**GRANT, "maximum_rounds": 9, "permit_version": 3, "supersedes": 2})
    desk.documents.receive(samples.COMMITTEE.sign(granted))
    desk.documents.receive(samples.acceptance(samples.signed_permit(granted)).text, by="data_steward")
    desk.runner._behaviours[samples.IMAGE] = table(FORTY_BUT_ONE, ["sex"])  # type: ignore[index]
    desk.order("run-2", nonce="run-2", permit_version=3)
    desk.analysed("run-2")
    assert {row.run: row.code for row in desk.files()} == {"run-1": None, "run-2": Code.DIFFERENCING}


def test_of_two_runs_that_end_at_once_one_is_held_against_the_other(desk: AnalysisDesk) -> None:
    both, tables = threading.Barrier(2, timeout=20), iter([table(FORTY, ["sex"]), table(FORTY_BUT_ONE, ["sex"])])

    def at_once(task: Any, model: bytes) -> Any:
        mine = next(tables)(task, model)
        both.wait()
        return mine

    desk.runner._behaviours[samples.IMAGE] = at_once  # type: ignore[index]
    desk.order("run-2", nonce="run-2")
    for run in ("run-1", "run-2"):
        desk.start(run)
    eventually(lambda: len(desk.files()) == 2, 30)
    assert sorted(str(row.code) for row in desk.files()) == ["None", "differencing"]


def test_what_left_before_counts_were_kept_is_said_to_be_unknown(desk: AnalysisDesk) -> None:
    leaves_for_good(desk, analysed(desk, "run-1", table(FORTY, ["sex"])))
    with desk.core.store.transaction(desk.now) as tx:  # as the migration leaves it
        tx._session.execute(sql("UPDATE shown_counts SET counts = NULL, dataset_version = NULL, split = NULL"))
    second = analysed(desk, "run-2", table(*RENAMED["no label"]))
    assert second.state is FileState.CHECKED and found_by(desk, second) == [("pass", 0), ("review", 1)]


# --- rounds ---------------------------------------------------------------------------------------------------


def rounds(counts: dict[int, int]) -> Behaviour:
    """A job whose metrics count these in each round, and give the model back."""

    def behave(task: Any, model: bytes) -> dict[str, bytes]:
        number = counts[task["round"]]
        metrics = {"loss": 0.5} if task["kind"] == "train" else {"auc": 0.5}
        files = {"metrics.json": json.dumps({**metrics, "num-examples": number}).encode()}
        return files | ({"model.safetensors": model} if task["kind"] == "train" else {})

    return behave


class RoundsDesk(Desk):
    airlock = AnalysisDesk.airlock


@pytest.fixture
def training(tmp_path: Path) -> Iterator[RoundsDesk]:
    made = RoundsDesk(tmp_path, rounds({1: 40, 2: 39, 3: 40}))
    made.jobs.start()
    yield made
    made.jobs.stop()
    made.core.store.close()


def test_a_round_that_counts_one_patient_less_waits_for_a_person(training: RoundsDesk) -> None:
    training.ask()
    training.until(JobState.RELEASED)
    training.ask(round=2)
    job = training.until(JobState.REFUSED, round_=2)
    assert job.code is Code.DIFFERENCING and len(training.releases()) == 1
    with training.core.store.read() as snapshot:
        (row,) = snapshot.airlock_files()
        (answer,) = [each for each in snapshot.outgoing() if each.instruction.startswith("run-1/2/")]
    assert answer.hub_code is not None and "differ" not in answer.hub_code.value, "a word that says no number is near"
    shown = airlock.show(training.core, row.file, STEWARD)
    assert shown.content == b'{"num-examples":39}' and shown.line.outcome == "review"
    (pair,) = shown.near
    assert (pair.here.count, pair.earlier.count, pair.name) == (39, 40, "round 1, train")

    training.ask(round=2, attempt=2)
    assert training.until(JobState.REFUSED, attempt=2, round_=2).code is Code.DIFFERENCING
    with training.core.store.read() as snapshot:
        assert snapshot.airlock_files() == (row,), "asked once"
    assert reviewed(training, row) is FileState.APPROVED
    training.ask(round=2, attempt=3)
    training.until(JobState.RELEASED, attempt=3, round_=2)


def test_what_left_in_a_round_that_people_let_is_never_forgotten(training: RoundsDesk) -> None:
    training.ask()
    training.until(JobState.RELEASED)
    training.ask(round=2)
    training.until(JobState.REFUSED, round_=2)
    with training.core.store.read() as snapshot:
        (row,) = snapshot.airlock_files()
    reviewed(training, row)
    training.ask(round=2, attempt=2)
    training.until(JobState.RELEASED, attempt=2, round_=2)
    training.now += training.core.airlock.expire + timedelta(hours=1)
    airlock.tend(training.core)
    with training.core.store.read() as snapshot:
        kept = snapshot.shown_counts("lesions-2026")
    assert [(each.name, each.left) for each in kept] == [("round 1, train", True), ("round 2, train", True)]


def ended(desk: RoundsDesk, round_: int, task: Kind, state: JobState) -> None:
    eventually(lambda: desk.job(1, round_, task).state is state)


def test_people_are_asked_about_each_kind_of_task_even_for_the_same_numbers(training: RoundsDesk) -> None:
    numbers = {("train", 1): 40, ("train", 2): 39, ("evaluate", 1): 45, ("evaluate", 2): 39}

    def behave(task: Any, model: bytes) -> dict[str, bytes]:
        return dict(rounds({task["round"]: numbers[task["kind"], task["round"]]})(task, model))

    training.runner._behaviours[samples.IMAGE] = behave  # type: ignore[index]
    for kind, number, state in (
        (Kind.TRAIN, 1, JobState.RELEASED),
        (Kind.EVALUATE, 1, JobState.RELEASED),
        (Kind.TRAIN, 2, JobState.REFUSED),
    ):
        training.ask(task=kind, round=number)
        ended(training, number, kind, state)
    with training.core.store.read() as snapshot:
        (first,) = snapshot.airlock_files()
    assert reviewed(training, first) is FileState.APPROVED
    training.ask(task=Kind.EVALUATE, round=2)
    eventually(lambda: training.job(1, 2, Kind.EVALUATE).state is JobState.REFUSED)
    with training.core.store.read() as snapshot:
        assert len(snapshot.airlock_files()) == 2


def test_rounds_that_count_the_same_are_all_released_and_kept_once(training: RoundsDesk) -> None:
    training.runner._behaviours[samples.IMAGE] = rounds({1: 40, 2: 40, 3: 40})  # type: ignore[index]
    for number in (1, 2, 3):
        training.ask(round=number)
        training.until(JobState.RELEASED, round_=number)
    with training.core.store.read() as snapshot:
        assert len(snapshot.shown_counts("lesions-2026")) == 1 and snapshot.airlock_files() == ()


def test_a_table_that_counts_one_patient_less_than_a_round_is_shown_to_a_person(tmp_path: Path) -> None:
    """One permit for both: what the hub heard of a round is held against what an analysis says."""
    both = {"kinds": (Kind.TRAIN, Kind.ANALYSE), "metrics": samples.permit().metrics}
    desk = AnalysisDesk(tmp_path, rounds({1: 40}), maximum_rounds=9, **both)
    trained = samples.order(run="run-9", nonce="run-9", schema_sha256=schema_sha256(samples.TENSORS))
    desk.documents.receive(samples.RESEARCHER.sign(trained))
    desk.jobs.start()
    try:
        assert desk.ask(run="run-9") is None
        eventually(desk.releases)
        row = analysed(desk, "run-1", table(FORTY_BUT_ONE, ["sex"]))
        assert found_by(desk, row) == [("review", 1)]
        assert airlock.show(desk.core, row.file, STEWARD).near[0].earlier.column == "train.num-examples"
    finally:
        desk.jobs.stop()
        desk.core.store.close()


def test_ended_waiting_lets_no_number_be_forgotten_that_left(desk: AnalysisDesk) -> None:
    first = analysed(desk, "run-1", table(FORTY, ["sex"]))
    leaves_for_good(desk, first)
    desk.now += timedelta(hours=5)
    second = analysed(desk, "run-2", table(*RENAMED["no label"]))
    airlock.tend(desk.core)
    with desk.core.store.read() as snapshot:
        assert [row.source for row in snapshot.shown_counts("lesions-2026")] == [first.file, second.file]
    desk.now += timedelta(days=6)
    airlock.tend(desk.core)
    with desk.core.store.read() as snapshot:
        assert [row.source for row in snapshot.shown_counts("lesions-2026")] == [first.file]
        assert snapshot.airlock_near(second.file) == ""
