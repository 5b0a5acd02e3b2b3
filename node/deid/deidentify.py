"""Gate 0, called from here and nowhere else: one instance in, a de-identified file or a reason out.

1. The engine reads the file strictly; what cannot be read whole is held back.
2. `mediator.deid.screening` decides on the instance: `publish` for ingest, `sort` where a person may look.
3. The patient's pseudonym, shift of dates and the study's pseudonym come from the site's key alone. Where the files of
   a study say one issuer of a patient's id, or none, it is one patient: an absent issuer is the study's.
4. The engine writes by the compiled profile and searches what it wrote; a hit takes the file away again. A file that
   lost a number its geometry or values depend on is for a person to look at.
5. A file made before its patient's and study's others said whose names and numbers they are is made once more, if it
   has one of them in its texts (`misnamed`): their order says nothing of what stays.
6. Whoever reads pixels has the last word on what was written (`node.deid.pixels.PixelGate`), series by series.
7. Each file is searched once more for what only the files after it lost (`suspects`); one that holds something of it
   is looked at again with all of it known (`Gate0.again`), and stands only where that is chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol

from mediator.deid.identifiers import Identifier, Lost
from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.rules import ProfileTable
from mediator.deid.screening import Exclusion, Facts, Sorting, publish, sort, with_values_unreadable
from mediator.deid.values import Subject
from node.deid.issuers import Issuers
from node.deid.outcome import NOBODY, GateOutcome, Identity
from node.deid.stream import Stream


class DicomSource(Protocol):
    """A file taken apart: what the gate needs to know of it."""

    @property
    def facts(self) -> Facts: ...

    @property
    def finding(self) -> Exclusion | None: ...


class DicomEngine(Protocol):
    """Reads and writes DICOM by a compiled profile (implemented by `node.deid.engine.ProfileEngine`)."""

    table: ProfileTable

    def take(self, stream: Stream) -> Any:
        """A `DicomSource`, or the `Exclusion` that says why the original cannot be read. The stream stays open until
        what was begun of it is finished: only headers are in memory."""

    def begin(self, source: Any, subject: Subject, path: Path) -> Any:
        """A new de-identified file at `path`, under way: call what comes back, in the order of beginning, before the
        source is closed; it gives `exclusion` (None: it stands and the residual check passed), `pardoned` matches
        inside values that are ours, `missed` (what the profile could not keep, by keyword) and `unreadable` (one of
        these is needed). Raises `FileExistsError` where the path is taken."""

    def lost(self, subject: Subject) -> Sequence[Lost]:
        """What this patient's files lost since this was last asked; identifying."""

    def remember(self, subject: Subject, values: Iterable[Lost]) -> None:
        """Search this patient's next files for these values, too; names and numbers among them are no terms there."""

    def search(self, source: Any, subject: Subject, path: Path) -> Exclusion | None:
        """Why what was made of this file, `path`, must not stand by all that is lost until now; nothing is written."""

    def named(self, source: Any, *, whole: bool = False) -> list[Identifier]:
        """The names and numbers of a patient that a file holds; those in its largest sequences only if `whole`."""

    def searcher(self) -> FileSearcher:
        """For finished files, once what the files after them lost is known."""


class FileSearcher(Protocol):
    """Lost values, and the finished files they are looked for in (implemented by `node.deid.searcher.Searcher`)."""

    def lost(self, values: Iterable[Lost]) -> None:
        """Look for these from now on, too."""

    def finds(self, path: Path, name: str = "") -> bool:
        """Whether the file, or the name it is still to get, holds one of them, by chance or not."""


@dataclass(frozen=True)
class Finished:
    """One file as `suspects` sees it: where it stands (or None), and what it was the first to lose."""

    path: Path | None
    keys: tuple[str, ...]
    lost: Sequence[Lost] = field(repr=False)
    name: str = ""


class Gate0:
    """De-identifies instances of one project at one site into `folder`.

    With `review` a person looks at what may be looked at; without, whatever would need one is excluded.
    """

    def __init__(self, engine: DicomEngine, pseudonyms: Pseudonyms, site: str = "", *, review: bool) -> None:
        self._engine = engine
        self._pseudonyms = pseudonyms
        self._site = site
        self._review = review
        self._screen = sort if review else publish
        self._subjects: dict[str, Subject] = {}
        self._lost: dict[str, list[Lost]] = {}
        self._issuers = Issuers()
        self._uid = lru_cache(maxsize=64)(pseudonyms.uid)  # of studies and series, again for every slice
        self._study = lru_cache(maxsize=64)(pseudonyms.study)
        self._patient = lru_cache(maxsize=64)(pseudonyms.patient)

    def begin(
        self, original: Stream, folder: Path, draft: Callable[[Identity], str], known: Sequence[Lost] = ()
    ) -> Callable[[], GateOutcome]:
        """One original, into a file of `folder` that `draft` names, under way: call what comes back, in the order of
        beginning, before the original is closed. A name that is taken is another original of the same instance.

        Its pixels nobody has read yet: `misnamed` comes next (5), whoever reads pixels (6), then `suspects` (7).
        `known`: what others of its patient and study are known to have lost.
        """
        source = self._engine.take(original)  # (1)
        if isinstance(source, Exclusion):
            return partial(GateOutcome, "refuse", (source,))
        facts: Facts = source.facts
        self._learn_issuer(facts)
        sorting = self._screen(facts, source.finding)  # (2)
        if sorting.place == "refuse":
            study = Identity(study=self._study(facts.study)) if facts.study else NOBODY
            return partial(GateOutcome, "refuse", sorting.reasons, identity=study)
        subject = self._subject(facts)  # (3)
        identity = self._identity(facts, subject)
        if known:
            self._engine.remember(subject, known)
        path = folder / draft(identity)
        try:
            convert = self._engine.begin(source, subject, path)  # (4)
        except FileExistsError:
            doubled = (Exclusion.DUPLICATE_INSTANCE,)
            return partial(GateOutcome, "refuse", doubled, None, identity, facts, lost=self._note(subject))
        begun = GateOutcome(sorting.place, sorting.reasons, path, identity, facts, lost=self._note(subject))
        return lambda: self._finished(begun, convert())

    def _finished(self, begun: GateOutcome, done: Any) -> GateOutcome:
        """What was begun, once the engine is through with it."""
        if done.exclusion is not None:
            return replace(begun, place="refuse", reasons=(done.exclusion,), path=None)
        outcome = replace(begun, pardoned=done.pardoned, missed=done.missed, notes=done.notes, doubtful=done.doubtful)
        if not done.unreadable:
            return outcome
        sorting = with_values_unreadable(Sorting(begun.place, begun.reasons), review=self._review)
        if sorting.place == "refuse":
            return withdrawn(outcome, Exclusion.VALUES_UNREADABLE)
        return replace(outcome, place=sorting.place, reasons=sorting.reasons)

    def _identity(self, facts: Facts, subject: Subject) -> Identity:
        return Identity(
            subject.patient,
            self._patient(facts.patient_id) if facts.patient_id.strip() else "",
            self._study(facts.study),
            self._uid(facts.study),
            self._uid(facts.series),
            self._pseudonyms.uid(facts.sop_instance),
            facts.series_number,
            facts.instance_number,
        )

    def _learn_issuer(self, facts: Facts) -> None:
        """Within one study, what does not say who issued its patient's id has it from whom the others say. (3)"""
        if facts.issuer and facts.study and facts.patient_id.strip():
            self._issuers.add(self._uid(facts.study), self._patient(facts.patient_id), facts.issuer)

    def _issuer(self, facts: Facts) -> str:
        if facts.issuer or not self._issuers:
            return facts.issuer
        return self._issuers.of(self._uid(facts.study), self._patient(facts.patient_id))

    def is_of_another(self, outcome: GateOutcome) -> bool:
        """Whether a file was made before its study's others said who issued its patient's id."""
        facts, patient = outcome.facts, outcome.identity.patient_alone
        if not patient or facts.issuer or not self._issuers:
            return False
        return outcome.identity.patient != self._pseudonyms.patient(facts.patient_id, self._issuer(facts))

    def again(self, original: Stream, lost: Iterable[Lost], path: Path) -> Exclusion | None:
        """Why a file must not stand, now that all its patient's files lost is known; None: what it holds is chance. (7)

        `path`: what was made of the original. Nothing is written.
        """
        source = self._engine.take(original)
        if isinstance(source, Exclusion):
            return source
        subject = self._subject(source.facts)
        self._engine.remember(subject, lost)
        refused: Exclusion | None = self._engine.search(source, subject, path)
        return refused

    def survey(self, original: Stream) -> tuple[Identity, list[Identifier], Exclusion | None]:
        """Whose an original is; the names and numbers it holds; or why it will be refused. Nothing is written."""
        source = self._engine.take(original)
        if isinstance(source, Exclusion):
            return NOBODY, [], source
        facts: Facts = source.facts
        self._learn_issuer(facts)
        sorting = self._screen(facts, source.finding)
        if sorting.place == "refuse":
            study = self._study(facts.study) if facts.study else ""
            return Identity(study=study), [], sorting.reasons[0]
        # where batches are studies every name is known before the first of them is written
        named = self._engine.named(source, whole=not self._review)
        return self._identity(facts, self._subject(facts)), named, None

    def issued(self) -> Issuers:
        """Who issued whose ids, by the files seen since this was last forgotten."""
        return self._issuers

    def expect(self, known: Mapping[str, Sequence[Lost]], issuers: Iterable[tuple[str, str, str]] = ()) -> None:
        """Of patients whose files are to come: names and numbers, what files that are done lost, and who issued ids."""
        self._lost = {patient: list(values) for patient, values in known.items()}
        self._issuers = Issuers(issuers)

    def forget(self) -> None:
        """Of patients who come again, what they lost before is somebody else's to search for: what becomes of a file
        does not depend on which others came before it here."""
        self._lost, self._subjects, self._issuers = {}, {}, Issuers()

    def _note(self, subject: Subject) -> tuple[Lost, ...]:
        """What the file before was the first of its patient's to lose."""
        fresh = tuple(self._engine.lost(subject))
        self._lost.setdefault(subject.patient, []).extend(fresh)
        return fresh

    def _subject(self, facts: Facts) -> Subject:
        keyed = self._pseudonyms
        if facts.patient_id.strip():
            issuer = self._issuer(facts)
            patient = keyed.patient(facts.patient_id, issuer)
            days = keyed.shift_days(facts.patient_id, issuer)
        else:
            # no two instances without an id share a pseudonym: they may be of two people
            patient = keyed.nobody(facts.sop_instance)
            days = keyed.shift_days(patient)
        if patient not in self._subjects:
            self._subjects = {patient: Subject(keyed, patient, days, self._site)}
            if patient in self._lost:  # another patient's files came between
                self._engine.remember(self._subjects[patient], self._lost[patient])
        return self._subjects[patient]


def withdrawn(outcome: GateOutcome, reason: Exclusion) -> GateOutcome:
    """The same instance, held back: its file is gone."""
    if outcome.path is not None:
        outcome.path.unlink()
    return replace(outcome, place="refuse", reasons=(reason,), path=None)


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
