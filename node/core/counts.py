"""The counts that left under a permit: as gate 2 is shown them, as they are kept, and where a round's go to people.

From the moment they are read until those that were checked are kept, `Core.counts_lock` is held: of two outputs that
come at once, one is held against the other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from mediator import canonical
from mediator.admission import Admitted
from mediator.airlock.review import FileEvent, FileState
from mediator.audit import Action, Verdict
from mediator.disclosure import CountRecord, DisclosureFinding, EarlierCounts, NearCount, ShownCount
from mediator.types import Kind
from node.core.context import Core, event, permit_name
from node.core.records import AirlockRow, JobRow, NewShownCounts, ShownCountsRow
from node.core.store.airlock import new_airlock_file
from node.core.store.reads import Reads


def earlier(snapshot: Reads, admitted: Admitted) -> tuple[EarlierCounts, ...]:
    """What left under a task's permit, or waits to; without the other split of its dataset version."""
    rows = snapshot.shown_counts(admitted.permit.terms.permit)
    version, split = admitted.dataset_version, admitted.split
    return tuple(_earlier(row) for row in rows if row.dataset_version != version or row.split == split)


def shown(
    source: str, name: str, admitted: Admitted, counts: Iterable[ShownCount], *, left: bool = False
) -> NewShownCounts:  # fmt: skip
    """A file's or a round's counts, to be kept."""
    instruction = admitted.instruction
    return NewShownCounts(
        source=source,
        permit=instruction.permit,
        run=instruction.run,
        name=name,
        task=instruction.task,
        dataset_version=admitted.dataset_version,
        split=admitted.split,
        left=left,
        counts=json.dumps([[each.column, each.key, each.count, each.over] for each in counts], separators=(",", ":")),
    )


def of_round(
    admitted: Admitted, counts: Iterable[ShownCount], before: Iterable[EarlierCounts]
) -> NewShownCounts | None:
    """What a round shows, to be kept as it leaves; None where all of it left before, as in most rounds of a run."""
    version = admitted.dataset_version
    # what people have let is forgotten when its file ends: what leaves now is kept in a row of its own
    known = {
        count for each in before if each.for_good and each.dataset_version == version for count in each.counts or ()
    }
    new = [count for count in counts if count not in known]
    return shown(admitted.instruction.id, _round_name(admitted), admitted, new, left=True) if new else None


@dataclass(frozen=True)
class RoundToJudge:
    """A round's counts that gate 2 held back: all of them, those it minds, and our encoding of them."""

    counts: tuple[ShownCount, ...]
    pairs: tuple[NearCount, ...]
    findings: tuple[DisclosureFinding, ...]
    content: bytes


def ask_people(core: Core, job: JobRow, admitted: Admitted, held: RoundToJudge) -> None:
    """Put a round's counts before the hospital's reviewers, once: when they let these very counts, a later attempt that
    shows them passes."""
    instruction = admitted.instruction
    digest = hashlib.sha256(held.content).hexdigest()
    with core.store.transaction(core.clock()) as tx:
        # the same numbers of another kind of task or version of the data are another question, and a yes is no question
        asked = (instruction.permit, digest, admitted.dataset_version, instruction.task.value)
        if asked in {_question(row) for row in tx.airlock_files(waiting=True) if row.state is FileState.CHECKED}:
            return
        record = canonical.encode(
            CountRecord(
                site=core.site,
                run=instruction.run,
                round=instruction.round,
                task=instruction.task,
                dataset_version=admitted.dataset_version,
                outcome="review",
                findings=held.findings,
                sha256=digest,
            )
        ).decode("utf-8")
        needed, near = core.airlock.reviewers, near_text(held.pairs)
        new = new_airlock_file(job, "counts.json", record, held.content, needed=needed, near=near)
        about = f"{new.file}@{new.record_sha256}"
        name = permit_name(job.permit, job.permit_version)
        told = event(Action.AIRLOCK_CHECK, about, Verdict.ALLOWED, permit=name)
        counts = shown(new.file, _round_name(admitted), admitted, held.counts)
        tx.add_airlock_file(new, FileEvent.CHECK, counts, event=told)


def _question(row: AirlockRow) -> tuple[str, str, str | None, str | None]:
    record = json.loads(row.record)
    return row.permit, row.content_sha256, record.get("dataset_version"), record.get("task")


def near_text(pairs: tuple[NearCount, ...]) -> str:
    """The values people have to judge, as the store keeps them."""
    return json.dumps(canonical.to_plain(pairs)) if pairs else ""


def near_of(text: str) -> tuple[NearCount, ...]:
    """The values people have to judge, as they were kept."""
    return canonical.from_plain(tuple[NearCount, ...], json.loads(text)) if text else ()


def _round_name(admitted: Admitted) -> str:
    return f"round {admitted.instruction.round}, {admitted.instruction.task.value}"


def _earlier(row: ShownCountsRow) -> EarlierCounts:
    let = row.approved and row.task is not Kind.ANALYSE  # a table may still be kept in, and its twin be looked at
    counts = None
    if row.counts is not None:
        counts = tuple(
            ShownCount(column, tuple((label, word) for label, word in key), number, tuple(over))
            for column, key, number, over in json.loads(row.counts)
        )
    return EarlierCounts(row.name, row.run, row.dataset_version or "", row.time, row.left or let, counts, row.left)
