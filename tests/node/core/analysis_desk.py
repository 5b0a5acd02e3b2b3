"""A desk whose permit grants analyses, with three persons who review: anna, bert, and the researcher's own key."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from mediator import canonical
from mediator.airlock.review import FileState, Review
from mediator.audit import Action, Verdict
from mediator.jobs import JobState
from mediator.permit import schema_sha256
from mediator.signatures import KeyRing, SigningKey
from mediator.types import Study
from node.core.airlock import airlock, analyse
from node.core.context import AirlockSettings, event
from node.core.records import AirlockRow, JobRow
from tests.mediator import samples
from tests.mediator.analyses import FREQUENCY, GRANT, ORDER, PATIENTS, frequency, outputs
from tests.node.core.desk import Desk, eventually, manifest
from tests.sim.runner import Behaviour

ANNA, BERT = map(samples.key, ("anna", "bert"))
STEWARD, ADMIN = "data_steward", "it_admin"


def pseudonym(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


def leaves(files: Mapping[str, bytes], *entries: Mapping[str, Any]) -> Behaviour:
    """A job that leaves these files, declared so."""
    return lambda _task, _model: {"outputs.json": outputs(*entries), **files}


TABLE = leaves({"a.csv": FREQUENCY}, frequency())


class AnalysisDesk(Desk):
    """One node's core with a local order `run-1`."""

    airlock = AirlockSettings(
        ring=KeyRing(key.verify_key for key in (ANNA, BERT, samples.RESEARCHER)),
        subjects={ANNA.key_id: "anna", BERT.key_id: "bert", samples.RESEARCHER.key_id: "researcher-1"},
        remind=timedelta(days=2),
        expire=timedelta(days=5),
    )

    def __init__(self, root: Path, behave: Behaviour = TABLE, **changes: Any) -> None:
        self._changes = changes
        super().__init__(root, behave)

    def _fill(self) -> None:
        granted = samples.permit(**{**GRANT, "maximum_rounds": 2, **self._changes})
        self.documents.receive(samples.COMMITTEE.sign(granted))
        self.documents.receive(samples.acceptance(samples.signed_permit(granted)).text, by="data_steward")
        self.documents.receive(samples.COMMITTEE.sign(samples.revocations()))
        self.order("run-1")
        studies = tuple(
            Study(pseudonym(n), pseudonym(-n - 1), "train" if n < PATIENTS else "test", f"studies/{pseudonym(n)}", 1)
            for n in range(PATIENTS + 20)
        )
        version = replace(manifest(), studies=studies, counts={"train": PATIENTS, "test": 20})
        (self.root / "datasets" / "lesions" / "a").mkdir(parents=True)
        (self.root / "datasets" / "lesions" / "a" / "manifest.json").write_bytes(canonical.encode(version))
        with self.core.store.transaction(self.now) as tx:
            tx.approve_image(samples.IMAGE, "", event=event(Action.IMAGE_APPROVE, samples.IMAGE, Verdict.DONE))
            published = event(Action.DATASET_PUBLISH, samples.VERSION, Verdict.DONE)
            tx.add_dataset_version(version, "d" * 64, "lesions/a", event=published)

    def order(self, run: str, **changes: Any) -> None:
        made = samples.order(**{**ORDER, "run": run, "schema_sha256": schema_sha256(samples.TENSORS), **changes})
        self.documents.receive(samples.RESEARCHER.sign(made))

    def start(self, run: str = "run-1") -> str:
        asked = analyse.start(self.core, run, ADMIN)
        self.jobs.submit_unfinished()
        return asked.id

    def analysed(self, run: str = "run-1") -> JobRow:
        """Start an analysis and wait for its end."""
        instruction = self.start(run)

        def look() -> JobRow | None:
            with self.core.store.read() as snapshot:
                found = [row for row in snapshot.jobs() if row.instruction == instruction]
            return (
                found[0]
                if found[0].state in (JobState.HELD, JobState.REFUSED, JobState.FAILED, JobState.STOPPED)
                else None
            )

        return eventually(look)

    def files(self) -> tuple[AirlockRow, ...]:
        with self.core.store.read() as snapshot:
            return snapshot.airlock_files()

    def file(self) -> AirlockRow:
        (found,) = self.files()
        return found

    def content(self) -> bytes | None:
        with self.core.store.read() as snapshot:
            return snapshot.airlock_content(self.file().file)

    def review(self, key: SigningKey = ANNA, **changes: Any) -> FileState:
        """A review of the one file there is, as its reviewer signs it."""
        return airlock.take_review(self.core, key.sign(self.draft(**changes)), STEWARD)

    def draft(self, **changes: Any) -> Review:
        row = self.file()
        base = Review(
            samples.SITE, row.file, row.content_sha256, row.record_sha256, "approve", "safe", self.now
        )  # fmt: skip
        return replace(base, **changes)
