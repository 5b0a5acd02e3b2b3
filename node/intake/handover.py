"""Instances become studies: counted, checked against each other, numbered, split by patient.

A study is published when at least one of its instances passed and all that did speak of one patient. Its folder is its
pseudonym and its files are numbered by series, instance number and UID, so equal input gives equal output in any order
of files.
"""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mediator.datasets import CLINICAL
from mediator.deid.orders import IngestOrder, IngestReport
from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.rules import ENGINE_VERSION, ProfileTable
from mediator.deid.screening import Exclusion
from mediator.types import Study
from node.deid.outcome import Identity
from node.deid.pipeline import Result
from node.intake.clinical import Clinical, Row

Split = Literal["train", "test", "unlabelled"]


@dataclass(frozen=True)
class _Passed:
    """A file that may be published, and where it stands."""

    identity: Identity
    path: Path


@dataclass
class _Study:
    passed: list[_Passed] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)


class Assembly:
    """Collects the results of one order and puts what passed in its final place under `staging`."""

    def __init__(self, order: IngestOrder, table: ProfileTable, staging: Path, pseudonyms: Pseudonyms) -> None:
        self._order = order
        self._table = table
        self._staging = staging
        self._pseudonyms = pseudonyms
        self._studies: dict[str, _Study] = {}
        self._excluded: Counter[str] = Counter()
        self._instances = 0

    def add(self, result: Result, path: Path) -> None:
        """Count one instance; `path` is where it stands, if it passed."""
        self._instances += 1
        name = result.identity.study
        study = self._studies.setdefault(name, _Study()) if name else None
        if result.exclusion is not None:
            self._excluded[result.exclusion] += 1
            if study is not None:
                study.reasons[result.exclusion] += 1
        elif study is not None:
            study.passed.append(_Passed(result.identity, path))

    def finish(self, clinical: Clinical) -> IngestReport:
        """Names, splits and the clinical table; then the account of everything."""
        rows: list[tuple[Study, Row | None]] = []
        excluded: Counter[str] = Counter()
        for name, study in sorted(self._studies.items()):
            self._hold_mixed(study)
            if not study.passed:
                excluded[min(study.reasons, key=lambda reason: (-study.reasons[reason], reason))] += 1
                shutil.rmtree(self._staging / "studies" / name, ignore_errors=True)
                continue
            first = study.passed[0].identity
            row = clinical.of(name, first.patient_alone)
            self._number(name, study)
            split = self._split(first.patient, clinical.is_label(row))
            rows.append((Study(name, first.patient, split, f"studies/{name}", len(study.passed)), row))
        path = self._staging / CLINICAL
        clinical.write(path, rows)
        path.chmod(0o640)
        return self._report([study for study, _row in rows], excluded, clinical)

    def _hold_mixed(self, study: _Study) -> None:
        """Two patients in one study: nobody can say whose pictures these are."""
        if len({one.identity.patient for one in study.passed}) > 1:
            reason = Exclusion.PATIENT_MISMATCH.value
            study.reasons[reason] += len(study.passed)
            self._excluded[reason] += len(study.passed)
            study.passed = []

    def _number(self, name: str, study: _Study) -> None:
        folder = self._staging / "studies" / name
        study.passed.sort(key=lambda one: (one.identity.series_number, *one.identity.position))
        width = max(4, len(str(len(study.passed))))
        for number, one in enumerate(study.passed, start=1):
            one.path.chmod(0o640)
            one.path.rename(folder / f"{number:0{width}d}.dcm")
        folder.chmod(0o750)
        folder.parent.chmod(0o750)

    def _split(self, patient: str, labelled: bool) -> Split:
        if not labelled:
            return "unlabelled"
        return "test" if self._pseudonyms.fraction(patient) < self._order.test_fraction else "train"

    def _report(self, published: list[Study], excluded: Counter[str], clinical: Clinical) -> IngestReport:
        order = self._order
        return IngestReport(
            order=order.order,
            site=order.site,
            project=order.project,
            dataset=order.dataset,
            profile=self._table.profile,
            profile_fingerprint=self._table.fingerprint,
            engine_version=ENGINE_VERSION,
            instances_in=self._instances,
            instances_published=sum(study.instances for study in published),
            instances_excluded=dict(sorted(self._excluded.items())),
            studies_in=len(self._studies),
            studies_published=len(published),
            studies_excluded=dict(sorted(excluded.items())),
            columns=clinical.types,
            clinical_refused=dict(sorted(clinical.refused.items())),
            destroyed=0,
            studies=tuple(published),
        )
