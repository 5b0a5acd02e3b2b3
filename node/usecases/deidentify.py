"""Gate 0, called from here and nowhere else: one instance in, a de-identified file or a reason out.

1. The engine reads the file strictly; what cannot be read whole is held back.
2. `mediator.deid.screening` decides on the instance: `screen` for ingest, `sort` for a folder, where a person may look.
3. The patient's pseudonym, shift of dates and the study's pseudonym come from the site's key alone.
4. The engine writes by the compiled profile and searches what it wrote; a hit takes the file away again.
5. Whoever reads pixels has the last word on what was written: `PixelReader.hold`, series by series.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.rules import Table
from mediator.deid.screening import Exclusion, Facts, screen, sort
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

    def open(self, handle: int) -> Any:
        """The same of a regular file's descriptor, which stays open until `write`: only headers are in memory."""

    def write(self, source: Any, subject: Subject, path: Path) -> Exclusion | None:
        """A new de-identified file at `path`; None when it stands and the residual check passed.

        Raises `FileExistsError` where the path is taken.
        """

    def convert(self, source: Any, subject: Subject, path: Path) -> Any:
        """`write`, with what was seen on the way: `exclusion`, and `pardoned` matches inside values that are ours."""


class PixelReader(Protocol):
    """Looks at the pixels of written files (implemented by `node.deid.pixels.PixelGate`)."""

    def hold(self, series: Sequence[tuple[Path, Facts]]) -> Sequence[Exclusion | None]:
        """Why each file of a series must not pass, or None; text that can be blacked out is gone from the file then."""


@dataclass(frozen=True)
class Outcome:
    """What became of one instance. All ids are pseudonyms; `patient_alone` leaves the issuer out (clinical tables).

    `facts` are the original's, for whoever reads pixels; they are never shown.
    """

    exclusion: Exclusion | None
    study: str = ""
    patient: str = ""
    patient_alone: str = ""
    path: Path | None = None
    position: tuple[str, int, int, str] = ("", 0, 0, "")  # series, its number, the instance's number and UID
    facts: Facts = field(default=Facts(), repr=False)


@dataclass(frozen=True)
class Placement:
    """What became of one file of a folder. A file stands at `path` exactly when `place` is not refuse.

    `name` is where it belongs below DST or DST.review, made of pseudonyms alone. `facts` are the original's: for
    whoever reads pixels, never shown.
    """

    place: Literal["pass", "review", "refuse"]
    reasons: tuple[Exclusion, ...] = ()
    path: Path | None = None
    name: str = ""
    series: str = ""
    facts: Facts = field(default=Facts(), repr=False)
    pardoned: int = 0


class Gate0:
    """De-identifies instances of one project at one site: `admit` into `folder/<study>/`, `sort_out` into `folder`."""

    def __init__(self, engine: DicomEngine, pseudonyms: Pseudonyms, folder: Path, site: str = "") -> None:
        self._engine = engine
        self._pseudonyms = pseudonyms
        self._folder = folder
        self._site = site
        self._subjects: dict[str, Subject] = {}

    def admit(self, content: bytes) -> Outcome:
        """One file's bytes to an outcome; a file stands in the folder exactly when there is no exclusion.

        Its pixels nobody has read yet: `held_for_pixels` comes next. (5)
        """
        source = self._engine.read(content)  # (1)
        if isinstance(source, Exclusion):
            return Outcome(source)
        facts: Facts = source.facts
        keyed = self._pseudonyms
        reasons = [  # (2)
            reason for reason in screen(facts, source.finding) if reason is not Exclusion.PIXEL_TEXT_NOT_CHECKED
        ]
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
            facts,
        )

    def sort_out(self, handle: int, name: str) -> Placement:
        """One open file of a folder, into `folder/name`. Raises `FileExistsError` where that is taken."""
        source = self._engine.open(handle)  # (1)
        if isinstance(source, Exclusion):
            return Placement("refuse", (source,))
        facts: Facts = source.facts
        sorting = sort(facts, source.finding)  # (2)
        if sorting.place == "refuse":
            return Placement("refuse", sorting.reasons)
        subject = self._subject(facts)  # (3)
        path = self._folder / name
        done = self._engine.convert(source, subject, path)  # (4)
        if done.exclusion is not None:
            return Placement("refuse", (done.exclusion,))
        keyed = self._pseudonyms
        series = keyed.uid(facts.series)
        place = f"{subject.patient}/{keyed.uid(facts.study)}/{series}/{keyed.uid(facts.sop_instance)}.dcm"
        return Placement(sorting.place, sorting.reasons, path, place, series, facts, done.pardoned)

    def _subject(self, facts: Facts) -> Subject:
        keyed = self._pseudonyms
        if facts.patient_id.strip():
            patient = keyed.patient(facts.patient_id, facts.issuer)
            days = keyed.shift_days(facts.patient_id, facts.issuer)
        else:
            # no two instances without an id share a pseudonym: they may be of two people
            patient = keyed.nobody(facts.sop_instance)
            days = keyed.shift_days(patient)
        if patient not in self._subjects:
            self._subjects = {patient: Subject(keyed, patient, days, self._site)}
        return self._subjects[patient]


def held_for_pixels(outcomes: Sequence[Outcome], pixels: PixelReader) -> list[Outcome]:
    """The outcomes, in order, after the pixels of what was written were read; what is held is taken away again. (5)"""
    after = list(outcomes)
    series: dict[str, list[int]] = {}
    for place, outcome in enumerate(outcomes):
        if outcome.path is not None:
            series.setdefault(outcome.position[0], []).append(place)
    for places in series.values():
        files = [(path, after[place].facts) for place in places if (path := after[place].path) is not None]
        for place, (path, _facts), reason in zip(places, files, pixels.hold(files), strict=True):
            if reason is not None:
                path.unlink()
                after[place] = replace(after[place], exclusion=reason, path=None)
    return after
