"""A study's files become a study: checked against each other, numbered, split by patient, given to core.

A study is published when at least one of its instances passed and all that did speak of one patient. Its folder is its
pseudonym and its files are numbered by series, instance number and UID, so equal input gives equal output in any order
of files. Each step may be broken off and done again.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from durable.files import flush_file, flush_folder, replace_file
from mediator import canonical
from mediator.datasets import CLINICAL
from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.rules import ENGINE_VERSION, ProfileTable
from mediator.deid.screening import Exclusion, Note
from mediator.import_orders import IngestOrder, IngestReport, Noted
from mediator.manifests import Deidentification, Split
from mediator.types import Study
from node.deid.sinks import StudySink
from node.host.versions import REPORT
from node.intake.clinical import Clinical
from node.intake.intake_db import IntakeDb, Passed


@dataclass(frozen=True)
class ReadyStudy:
    """A study that stands at `folder`, whole, for core to take. `studies`: how many the import has."""

    folder: Path
    studies: int
    study: str
    patient: str
    split: Split
    instances: int
    made_by: Deidentification


TakeStudy = Callable[[ReadyStudy], None]
"""Returns once core has the study, on record. Raises what ends the import where it will not take it."""


class Handover:
    """What passed of one import: from `staging`, where it was written, by `ready`, which core reads, to core."""

    def __init__(
        self, order: IngestOrder, clinical: Clinical, pseudonyms: Pseudonyms, staging: Path, ready: Path
    ) -> None:
        self._order = order
        self._clinical = clinical
        self._pseudonyms = pseudonyms
        self._staging = staging
        self._ready = ready
        self._begun = False

    def sink(self, study: str) -> StudySink:
        """Where a study's files are written."""
        return StudySink(self._staging / study)

    def clear(self, study: str) -> None:
        """Nothing of a study stands."""
        shutil.rmtree(self._staging / study, ignore_errors=True)
        shutil.rmtree(self._ready / study, ignore_errors=True)

    def flush(self, study: str) -> None:
        """Bring what was written of a study to the disk: from here on its originals are needed for nothing else."""
        folder = self._staging / study
        for path in folder.glob("*.dcm"):
            flush_file(path)
        if folder.is_dir():
            for one in (folder, self._staging) if self._begun else (folder, self._staging, self._staging.parent):
                flush_folder(one)
            self._begun = True

    def give(self, database: IntakeDb, study: str, take: TakeStudy) -> bool:
        """Have core take a study. False where nothing of it may be published."""
        passed = database.passed(study)
        if len({one.identity.patient for one in passed}) > 1:
            # two patients in one study: nobody can say whose pictures these are
            database.refuse([one.number for one in passed], Exclusion.PATIENT_MISMATCH)
            passed = []
        if not passed:
            return False
        first = passed[0].identity
        labelled = self._clinical.is_label(self._clinical.of(study, first.patient_alone))
        split = self._split(first.patient, labelled)
        self._number(study, passed)
        made_by = database.study(study).made_by
        ready = ReadyStudy(
            self._ready / study, database.count("study"), study, first.patient, split, len(passed), made_by
        )
        take(ready)
        database.handed_over(study, first.patient, first.patient_alone, split, len(passed))
        return True

    def _number(self, study: str, passed: list[Passed]) -> None:
        source, target = self._staging / study, self._ready / study
        if target.is_dir():
            return
        self.sink(study).tidy()
        ordered = sorted(passed, key=lambda one: (one.identity.series_number, *one.identity.position))
        width = max(4, len(str(len(ordered))))
        names = [f"{number:0{width}d}.dcm" for number in range(1, len(ordered) + 1)]
        for stray in {path.name for path in source.iterdir()} - {*names, *(one.name for one in passed)}:
            (source / stray).unlink()  # of a worker that died twice over a file, which is refused
        for name, one in zip(names, ordered, strict=True):
            numbered = source / name
            if not numbered.exists():  # else an earlier, broken try has named it
                (source / one.name).chmod(0o640)
                (source / one.name).rename(numbered)
        source.chmod(0o750)
        self._ready.mkdir(mode=0o750, exist_ok=True)
        source.rename(target)

    def _split(self, patient: str, labelled: bool) -> Split:
        if not labelled:
            return "unlabelled"
        return "test" if self._pseudonyms.fraction(patient) < self._order.test_fraction else "train"

    def _told(self, noted: Noted) -> Noted:
        """A count as a dataset has it: of files that were defaced before, with the program that is said to have."""
        named = noted.note == Note.DEFACED_BEFORE and self._order.defaced_by
        return replace(noted, note=f"{noted.note}.{self._order.defaced_by}") if named else noted

    def finish(self, database: IntakeDb, table: ProfileTable, destroyed: int) -> IngestReport:
        """The clinical table, and the account of everything, whole by one rename."""
        order, clinical = self._order, self._clinical
        rows, published, refused = [], [], Counter(clinical.refused)
        for one in database.published():
            study = Study(one.study, one.patient, one.split, f"studies/{one.study}", one.instances)  # type: ignore[arg-type]
            published.append(study)
            rows.append((study, clinical.of(one.study, one.patient_alone)))
            refused["patient_mismatch"] += clinical.contradicts(one.study, one.patient_alone)
        report = IngestReport(
            order=order.order,
            site=order.site,
            project=order.project,
            dataset=order.dataset,
            profile=table.profile,
            profile_fingerprint=table.fingerprint,
            engine_version=ENGINE_VERSION,
            instances_in=database.count(),
            instances_published=sum(study.instances for study in published),
            instances_excluded=database.exclusions(),
            studies_in=database.count("study"),
            studies_published=len(published),
            studies_excluded=database.studies_excluded(),
            columns=clinical.types,
            clinical_refused=dict(sorted((+refused).items())),
            destroyed=destroyed,
            studies=tuple(published),
            missed=database.missed(),
            notes=tuple(map(self._told, database.notes())),
            defaced_by=order.defaced_by,
        )
        self._ready.mkdir(mode=0o750, exist_ok=True)
        path = self._ready / CLINICAL
        clinical.write(path, rows)
        path.chmod(0o640)
        flush_file(path)
        flush_folder(self._ready.parent)
        replace_file(self._ready / REPORT, canonical.encode(report), mode=0o640)
        return report
