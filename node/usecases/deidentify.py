"""Gate 0, called from here and nowhere else: one instance in, a de-identified file or a reason out.

1. The engine reads the file strictly; what cannot be read whole is held back.
2. `mediator.deid.screening.screen` decides on the instance.
3. The patient's pseudonym, shift of dates and the study's pseudonym come from the site's key alone.
4. The engine writes by the compiled profile and searches what it wrote; a hit takes the file away again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.rules import Table
from mediator.deid.screening import Exclusion, Facts, screen
from mediator.deid.values import Subject


class DicomSource(Protocol):
    """A file taken apart: what the gate needs to know of it."""

    @property
    def facts(self) -> Facts: ...

    @property
    def finding(self) -> Exclusion | None: ...


class DicomEngine(Protocol):
    """Reads and writes DICOM by a compiled profile (implemented by `node.deid.engine.Engine`)."""

    table: Table

    def read(self, content: bytes) -> Any:
        """A `DicomSource`, or the `Exclusion` that says why the file cannot be read."""

    def write(self, source: Any, subject: Subject, path: Path) -> Exclusion | None:
        """A new de-identified file at `path`; None when it stands and the residual check passed.

        Raises `FileExistsError` where the path is taken.
        """


@dataclass(frozen=True)
class Outcome:
    """What became of one instance. All ids are pseudonyms; `patient_alone` leaves the issuer out (clinical tables)."""

    exclusion: Exclusion | None
    study: str = ""
    patient: str = ""
    patient_alone: str = ""
    path: Path | None = None
    position: tuple[str, int, int, str] = ("", 0, 0, "")  # series, its number, the instance's number and UID


class Gate0:
    """De-identifies instances of one project at one site into `folder/<study>/`."""

    def __init__(self, engine: DicomEngine, pseudonyms: Pseudonyms, folder: Path) -> None:
        self._engine = engine
        self._pseudonyms = pseudonyms
        self._folder = folder
        self._subjects: dict[str, Subject] = {}

    def admit(self, content: bytes) -> Outcome:
        """One file's bytes to an outcome; a file stands in the folder exactly when there is no exclusion."""
        source = self._engine.read(content)  # (1)
        if isinstance(source, Exclusion):
            return Outcome(source)
        facts: Facts = source.facts
        keyed = self._pseudonyms
        reasons = screen(facts, source.finding)  # (2)
        study = keyed.study(facts.study) if facts.study else ""
        if reasons:
            return Outcome(reasons[0], study)
        subject = self._subject(facts)  # (3)
        uid = keyed.uid(facts.sop_instance)
        folder = self._folder / study
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        path = folder / f"{uid}.part"
        try:
            refused = self._engine.write(source, subject, path)  # (4)
        except FileExistsError:
            refused = Exclusion.DUPLICATE_INSTANCE
        return Outcome(
            refused,
            study,
            subject.patient,
            keyed.patient(facts.patient_id),
            None if refused else path,
            (keyed.uid(facts.series), facts.series_number, facts.instance_number, uid),
        )

    def _subject(self, facts: Facts) -> Subject:
        keyed = self._pseudonyms
        patient = keyed.patient(facts.patient_id, facts.issuer)
        if patient not in self._subjects:
            self._subjects = {patient: Subject(keyed, patient, keyed.shift_days(facts.patient_id, facts.issuer))}
        return self._subjects[patient]
