"""Gate 0, called from here and nowhere else: one instance in, a de-identified file or a reason out.

1. The engine reads the file strictly; what cannot be read whole is held back.
2. `mediator.deid.screening` decides on the instance: `screen` for ingest, `sort` for a folder, where a person may look.
3. The patient's pseudonym, shift of dates and the study's pseudonym come from the site's key alone.
4. The engine writes by the compiled profile and searches what it wrote; a hit takes the file away again.
5. A file made before its patient's and study's others said whose names and numbers they are is made once more, if it
   has one of them in its texts (`misnamed`): their order says nothing of what stays.
6. Whoever reads pixels has the last word on what was written: `PixelReader.hold`, series by series.
7. Each file is searched once more for what only the files after it lost (`suspects`); one that holds something of it
   is made again with all of it known (`Gate0.again`), and stands only where that is chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, Protocol

from mediator.deid.identifiers import Identifier, Lost
from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.rules import ProfileTable
from mediator.deid.screening import Exclusion, Facts, Sorting, screen, sort
from mediator.deid.values import Subject


class DicomSource(Protocol):
    """A file taken apart: what the gate needs to know of it."""

    @property
    def facts(self) -> Facts: ...

    @property
    def finding(self) -> Exclusion | None: ...


class DicomEngine(Protocol):
    """Reads and writes DICOM by a compiled profile (implemented by `node.deid.engine.ProfileEngine`)."""

    table: ProfileTable

    def read(self, content: bytes) -> Any:
        """A `DicomSource`, or the `Exclusion` that says why the file cannot be read."""

    def open(self, handle: int) -> Any:
        """The same of a regular file's descriptor, which stays open until `write`: only headers are in memory."""

    def take(self, stream: Any) -> Any:
        """The same of an original that is read in pieces (a `node.deid.stream.Stream`)."""

    def write(self, source: Any, subject: Subject, path: Path) -> Exclusion | None:
        """A new de-identified file at `path`; None when it stands and the residual check passed.

        Raises `FileExistsError` where the path is taken.
        """

    def begin(self, source: Any, subject: Subject, path: Path) -> Any:
        """`write` under way: call what comes back, in the order of beginning, before the source is closed; it gives
        `exclusion`, and `pardoned` matches inside values that are ours."""

    def lost(self, subject: Subject) -> Sequence[Lost]:
        """What this patient's files lost since this was last asked; identifying."""

    def remember(self, subject: Subject, values: Iterable[Lost]) -> None:
        """Search this patient's next files for these values, too; names and numbers among them are no terms there."""

    def search(self, source: Any, subject: Subject, path: Path) -> Exclusion | None:
        """Why what was made of this file, `path`, must not stand by all that is lost until now; nothing is written."""

    def named(self, source: Any) -> list[Identifier]:
        """The names and numbers of a patient that a file holds."""

    def searcher(self) -> FileSearcher:
        """For finished files, once what the files after them lost is known."""


class FileSearcher(Protocol):
    """Lost values, and the finished files they are looked for in (implemented by `node.deid.searcher.Searcher`)."""

    def lost(self, values: Iterable[Lost]) -> None:
        """Look for these from now on, too."""

    def finds(self, path: Path, name: str = "") -> bool:
        """Whether the file, or the name it is still to get, holds one of them, by chance or not."""


class PixelReader(Protocol):
    """Looks at the pixels of written files (implemented by `node.deid.pixels.PixelGate`)."""

    def hold(self, series: Sequence[tuple[Path, Facts]]) -> Iterator[tuple[int, Exclusion | None]]:
        """(place in the series, why the file must not pass, or None) as each file is judged, every file once.

        Text that can be blacked out is gone from the file then.
        """


@dataclass(frozen=True)
class Outcome:
    """What became of one instance. All ids are pseudonyms; `patient_alone` leaves the issuer out (clinical tables).

    `facts` are the original's, for whoever reads pixels; `lost` is what it was the first of its patient's files to
    lose. Neither is ever shown.
    """

    exclusion: Exclusion | None
    study: str = ""
    patient: str = ""
    patient_alone: str = ""
    path: Path | None = None
    position: tuple[str, int, int, str] = ("", 0, 0, "")  # series, its number, the instance's number and UID
    facts: Facts = field(default=Facts(), repr=False)
    lost: tuple[Lost, ...] = field(default=(), repr=False)

    @property
    def keys(self) -> tuple[str, ...]:
        """Whose it is, and of which study."""
        return tuple(key for key in (self.patient, self.study) if key)


@dataclass(frozen=True)
class Placement:
    """What became of one file of a folder. A file stands at `path` exactly when `place` is not refuse.

    `name` is where it belongs below DST or DST.review, made of pseudonyms alone. `facts` and `lost` as for `Outcome`.
    """

    place: Literal["pass", "review", "refuse"]
    reasons: tuple[Exclusion, ...] = ()
    path: Path | None = None
    name: str = ""
    series: str = ""
    facts: Facts = field(default=Facts(), repr=False)
    pardoned: int = 0
    keys: tuple[str, ...] = ()
    lost: tuple[Lost, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Finished:
    """One file as `suspects` sees it: where it stands (or None), and what it was the first to lose."""

    path: Path | None
    keys: tuple[str, ...]
    lost: Sequence[Lost] = field(repr=False)
    name: str = ""


class Gate0:
    """De-identifies instances of one project at one site: `admit` into `folder/<study>/`, `begin` into `folder`."""

    def __init__(self, engine: DicomEngine, pseudonyms: Pseudonyms, folder: Path, site: str = "") -> None:
        self._engine = engine
        self._pseudonyms = pseudonyms
        self._folder = folder
        self._site = site
        self._subjects: dict[str, Subject] = {}
        self._lost: dict[str, list[Lost]] = {}
        self._uid = lru_cache(maxsize=64)(pseudonyms.uid)  # of studies and series, again for every slice

    def admit(self, original: Any, known: Sequence[Lost] = ()) -> Outcome:
        """One original (its bytes, or a stream of them) to an outcome: a file stands exactly when nothing excludes it.

        Its pixels nobody has read yet: `misnamed` comes next (5), `read_pixels` (6), then `suspects` (7). `known`: what
        others of its patient and study are known to have lost.
        """
        source = self._read(original)  # (1)
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
        if known:
            self._engine.remember(subject, known)
        folder = self._folder / study
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        path = folder / f"{uid}.part"
        try:
            refused = self._engine.write(source, subject, path)  # (4)
        except FileExistsError:
            refused = Exclusion.DUPLICATE_INSTANCE
        lost = self._note(subject)
        return Outcome(
            refused,
            study,
            subject.patient,
            keyed.patient(facts.patient_id),
            None if refused else path,
            (keyed.uid(facts.series), facts.series_number, facts.instance_number, uid),
            facts,
            lost,
        )

    def begin(self, handle: int, name: str, known: Sequence[Lost] = ()) -> Callable[[], Placement]:
        """One open file of a folder, into `folder/name`, under way: call what comes back, in the order of beginning,
        before the descriptor is closed. `known` as for `admit`. Raises `FileExistsError` where that is taken."""
        source = self._engine.open(handle)  # (1)
        if isinstance(source, Exclusion):
            return partial(Placement, "refuse", (source,))
        facts: Facts = source.facts
        sorting = sort(facts, source.finding)  # (2)
        if sorting.place == "refuse":
            return partial(Placement, "refuse", sorting.reasons)
        subject = self._subject(facts)  # (3)
        if known:
            self._engine.remember(subject, known)
        path = self._folder / name
        convert = self._engine.begin(source, subject, path)  # (4)
        lost = self._note(subject)
        return lambda: self._placed(convert(), sorting, subject, path, facts, lost)

    def _placed(
        self, done: Any, sorting: Sorting, subject: Subject, path: Path, facts: Facts, lost: tuple[Lost, ...]
    ) -> Placement:
        study, series = self._uid(facts.study), self._uid(facts.series)
        keys = (subject.patient, study)
        if done.exclusion is not None:
            return Placement("refuse", (done.exclusion,), keys=keys, lost=lost)
        place = f"{subject.patient}/{study}/{series}/{self._pseudonyms.uid(facts.sop_instance)}.dcm"
        return Placement(sorting.place, sorting.reasons, path, place, series, facts, done.pardoned, keys, lost)

    def again(self, original: Any, lost: Iterable[Lost], path: Path) -> Exclusion | None:
        """Why a file must not stand, now that all its patient's files lost is known; None: what it holds is chance. (7)

        `original`: its bytes, a stream of them, or a descriptor; `path`: what was made of it. Nothing is written.
        """
        source = self._read(original)
        if isinstance(source, Exclusion):
            return source
        subject = self._subject(source.facts)
        self._engine.remember(subject, lost)
        refused: Exclusion | None = self._engine.search(source, subject, path)
        return refused

    def _read(self, original: Any) -> Any:
        if isinstance(original, bytes):
            return self._engine.read(original)
        return self._engine.open(original) if isinstance(original, int) else self._engine.take(original)

    def survey(self, handle: int) -> tuple[tuple[str, ...], list[Identifier]]:
        """Whose an open file is, and of which study; the names and numbers it holds. Nothing is written."""
        source = self._engine.open(handle)
        if isinstance(source, Exclusion) or sort(source.facts, source.finding).place == "refuse":
            return (), []
        keys = (self._subject(source.facts).patient, self._uid(source.facts.study))
        return keys, self._engine.named(source)

    def expect(self, known: Mapping[str, Sequence[Identifier]]) -> None:
        """Names and numbers of patients whose files are to come."""
        self._lost = {patient: list(identifiers) for patient, identifiers in known.items()}

    def forget(self) -> None:
        """Of patients who come again, what they lost before is somebody else's to search for: what becomes of a file
        does not depend on which others came before it here."""
        self._lost, self._subjects = {}, {}

    def _note(self, subject: Subject) -> tuple[Lost, ...]:
        """What the file before was the first of its patient's to lose."""
        fresh = tuple(self._engine.lost(subject))
        self._lost.setdefault(subject.patient, []).extend(fresh)
        return fresh

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
            if patient in self._lost:  # another patient's files came between
                self._engine.remember(self._subjects[patient], self._lost[patient])
        return self._subjects[patient]


def read_pixels(outcomes: Sequence[Outcome], pixels: PixelReader) -> Iterator[tuple[int, Outcome]]:
    """(place, outcome) for each written file as its pixels are judged; what is held is taken away again. (6)"""
    series: dict[str, list[int]] = {}
    for place, outcome in enumerate(outcomes):
        if outcome.path is not None:
            series.setdefault(outcome.position[0], []).append(place)
    for places in series.values():
        files = [(path, outcomes[place].facts) for place in places if (path := outcomes[place].path) is not None]
        for number, reason in pixels.hold(files):
            outcome = outcomes[places[number]]
            yield places[number], outcome if reason is None else withdrawn(outcome, reason)


def withdrawn(outcome: Outcome, reason: Exclusion) -> Outcome:
    """The same instance, held back: its file is gone."""
    if outcome.path is not None:
        outcome.path.unlink()
    return replace(outcome, exclusion=reason, path=None)


def misnamed(files: Sequence[Finished], engine: DicomEngine) -> list[tuple[int, list[Lost]]]:
    """(place in `files`, all names and numbers of its patient and study) of files that have others' in their texts. (5)

    In the order of `files`, as each is to be made again.
    """
    named = [replace(file, lost=[one for one in file.lost if isinstance(one, Identifier)]) for file in files]
    return sorted(suspects(named, engine))


def suspects(files: Sequence[Finished], engine: DicomEngine) -> Iterator[tuple[int, list[Lost]]]:
    """(place in `files`, all its patient and study lost) of files that hold something only files after them lost. (7)

    From the last file to the first: each is searched for what the ones after it were the first to lose. Where one study
    is of several patients, what one of them lost before was not searched for in the others' files: it is here.
    """
    for group in groups([file.keys for file in files]):
        if len(group) < 2:
            continue
        searcher, everything = engine.searcher(), [value for place in group for value in files[place].lost]
        if len({files[place].keys[0] for place in group}) > 1:
            searcher.lost(everything)
        for place in reversed(group):
            file = files[place]
            if file.path is not None and searcher.finds(file.path, file.name):
                yield place, everything
            searcher.lost(file.lost)


def groups(keys: Sequence[tuple[str, ...]]) -> list[list[int]]:
    """Places of what shares a key, directly or through others; ascending. What has no key is in none."""
    leader: dict[str, str] = {}

    def lead(key: str) -> str:
        while (above := leader.setdefault(key, key)) != key:
            leader[key] = key = leader[above]
        return key

    for several in keys:
        for key in several[1:]:
            leader[lead(key)] = lead(several[0])
    found: dict[str, list[int]] = {}
    for place, several in enumerate(keys):
        if several:
            found.setdefault(lead(several[0]), []).append(place)
    return list(found.values())
