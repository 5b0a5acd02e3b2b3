"""`intake.db`: everything intake knows of one import, so that whatever ends intake, the import goes on from here.

It lies beside the sealed originals, is readable by intake alone (0600) and goes with them. Patients, studies and series
are pseudonyms; of a path there is a keyed mark alone, which tells that a source was taken in before; what names a
patient (names, numbers, what files lost) is sealed with the quarantine's key until the study is forgotten.

Rows are read in pages: an import has more files than memory should hold.
"""

# ruff: noqa: S608 - what is put into a statement are names of ours, never a value
from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from durable.files import flush_folder
from mediator.deid.identifiers import Lost
from mediator.deid.screening import Exclusion
from mediator.errors import UnsupportedVersion
from mediator.import_orders import Missed, Noted
from mediator.imports import StudyState, StudyStep, advance_study
from mediator.manifests import Deidentification
from node.deid.deidentify import groups
from node.deid.outcome import Identity
from node.deid.pipeline import File, Result, Survey, Trace
from node.deid.traces import decode_lost, decode_trace, encode_lost, encode_trace
from node.intake.quarantine import mark, seal, unseal

_VERSION = 2
_PAGE = 500
_DEFECT = Exclusion.OUR_DEFECT.value
_SCHEMA = """
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE source (
    number INTEGER PRIMARY KEY,
    mark BLOB NOT NULL UNIQUE,
    quarantined TEXT,
    destroyed INTEGER NOT NULL DEFAULT 0,
    surveyed INTEGER NOT NULL DEFAULT 0,
    exclusion TEXT,
    name TEXT NOT NULL DEFAULT '',
    patient TEXT NOT NULL DEFAULT '',
    patient_alone TEXT NOT NULL DEFAULT '',
    study TEXT NOT NULL DEFAULT '',
    study_uid TEXT NOT NULL DEFAULT '',
    series TEXT NOT NULL DEFAULT '',
    instance TEXT NOT NULL DEFAULT '',
    series_number INTEGER NOT NULL DEFAULT 0,
    instance_number INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX source_of_study ON source (study, number);
CREATE TABLE study (
    study TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    people INTEGER NOT NULL,
    profile TEXT NOT NULL DEFAULT '',
    profile_fingerprint TEXT NOT NULL DEFAULT '',
    engine_version TEXT NOT NULL DEFAULT '',
    patient TEXT NOT NULL DEFAULT '',
    patient_alone TEXT NOT NULL DEFAULT '',
    split TEXT NOT NULL DEFAULT '',
    instances INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX study_of_people ON study (people);
CREATE TABLE named (
    study TEXT NOT NULL, patient TEXT NOT NULL, mark BLOB NOT NULL, sealed BLOB NOT NULL,
    PRIMARY KEY (study, patient, mark)
) STRICT;
CREATE TABLE trace (
    study TEXT NOT NULL, place INTEGER NOT NULL, sealed BLOB NOT NULL, PRIMARY KEY (study, place)
) STRICT;
"""
_MISSED = """
CREATE TABLE IF NOT EXISTS missed (
    number INTEGER NOT NULL, keyword TEXT NOT NULL, elements INTEGER NOT NULL, PRIMARY KEY (number, keyword)
) STRICT;
"""
_NOTED = """
CREATE TABLE IF NOT EXISTS noted (number INTEGER NOT NULL, note TEXT NOT NULL, PRIMARY KEY (number, note)) STRICT;
"""
_IDENTITY = "patient, patient_alone, study, study_uid, series, instance, series_number, instance_number"


@dataclass(frozen=True)
class StudyRow:
    """A study of an import. `people` numbers its patient's studies; of a published one the rest is there, of one that
    is not, `reason`."""

    study: str
    state: StudyState
    people: int
    profile: str
    profile_fingerprint: str
    engine_version: str
    patient: str
    patient_alone: str
    split: str
    instances: int
    reason: str

    @property
    def made_by(self) -> Deidentification:
        return Deidentification(self.profile, self.profile_fingerprint, self.engine_version)


@dataclass(frozen=True)
class TakenIn:
    """A source: the opaque name under which it lies in quarantine, or why it was not taken in."""

    path: str
    quarantined: str | None = None
    refused: str | None = None


@dataclass(frozen=True)
class Passed:
    """A file that may be published: what it is called in its study's staging folder."""

    number: int
    name: str
    identity: Identity


class IntakeDb:
    """The files and studies of one import. `key` is the quarantine's."""

    def __init__(self, path: Path, key: bytes) -> None:
        self._key = key
        path.touch(mode=0o600, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA secure_delete = ON")
        self._empty_log()  # of one who was killed before he had
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
            flush_folder(path.parent)
            flush_folder(path.parent.parent)
        elif version != _VERSION:
            raise UnsupportedVersion("intake.db is of another version", hint="give the order again")
        for table in (_MISSED, _NOTED):  # an import that an older node began has none
            self._db.execute(table)

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _together(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def setting(self, name: str) -> str:
        """What was kept under this name; "" for nothing."""
        row = self._db.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
        return row[0] if row else ""

    def keep(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, value))

    # --- taking in

    def knows(self, path: str) -> bool:
        """Whether this source was dealt with before the import was broken off."""
        return self._db.execute("SELECT 1 FROM source WHERE mark = ?", (self._mark(path),)).fetchone() is not None

    def add(self, sources: Iterable[TakenIn]) -> None:
        """Record sources under the next numbers."""
        with self._together():
            self._db.executemany(
                "INSERT INTO source (mark, quarantined, exclusion) VALUES (?, ?, ?)",
                ((self._mark(one.path), one.quarantined, one.refused) for one in sources),
            )

    def unnamed(self, files: Iterable[str]) -> list[str]:
        """Those of these quarantined files that no source is recorded with."""
        self._db.execute("CREATE TEMP TABLE file (name TEXT NOT NULL) STRICT")
        with self._together():
            self._db.executemany("INSERT INTO file VALUES (?)", ((name,) for name in files))
        rows = self._db.execute("SELECT name FROM file EXCEPT SELECT quarantined FROM source").fetchall()
        self._db.execute("DROP TABLE file")
        return [row[0] for row in rows]

    def unsurveyed(self) -> Iterator[File]:
        """Files nobody has asked yet whose they are, by number."""
        yield from self._files("surveyed = 0", ())

    def surveyed(self, surveys: Sequence[Survey]) -> None:
        """Keep what files say of themselves."""
        with self._together():
            for survey in surveys:
                one = survey.identity
                self._db.execute(
                    f"UPDATE source SET surveyed = 1, exclusion = ?, {_assign(_IDENTITY)} WHERE number = ?",
                    (survey.exclusion, *_values(one), survey.number),
                )
                if survey.named and one.study:
                    plain = encode_lost(survey.named)
                    self._db.execute(
                        "INSERT OR IGNORE INTO named VALUES (?, ?, ?, ?)",
                        (one.study, one.patient, mark(self._key, plain), seal(self._key, plain)),
                    )

    def group_studies(self) -> None:
        """Make the studies of what is surveyed. Those of one patient, directly or through others, get one number."""
        found = self._db.execute("SELECT DISTINCT study, patient FROM source WHERE study <> ''").fetchall()
        known = {row[0] for row in self._db.execute("SELECT study FROM study")}
        keys = [(f"s{study}", f"p{patient}") if patient else (f"s{study}",) for study, patient in found]
        with self._together():
            for number, places in enumerate(groups(keys)):
                for study in sorted({found[place][0] for place in places}):
                    if study in known:
                        self._db.execute("UPDATE study SET people = ? WHERE study = ?", (number, study))
                    else:
                        self._db.execute(
                            "INSERT INTO study (study, state, people) VALUES (?, ?, ?)",
                            (study, StudyState.TAKEN_IN.value, number),
                        )
            self._db.execute("INSERT OR REPLACE INTO setting VALUES ('taken_in', 'yes')")

    # --- studies

    def people(self) -> Iterator[tuple[StudyRow, ...]]:
        """The studies of one patient after the other, as long as one of them is neither forgotten nor waits."""
        last, over = -1, (StudyState.FORGOTTEN.value, StudyState.WAITING.value)
        query = "SELECT min(people) FROM study WHERE people > ? AND state NOT IN (?, ?)"
        while (found := self._db.execute(query, (last, *over)).fetchone()[0]) is not None:
            last = found
            rows = self._db.execute("SELECT * FROM study WHERE people = ? ORDER BY study", (last,)).fetchall()
            yield tuple(map(_row, rows))

    def study(self, study: str) -> StudyRow:
        return _row(self._db.execute("SELECT * FROM study WHERE study = ?", (study,)).fetchone())

    def studies(self, state: StudyState) -> list[str]:
        query = "SELECT study FROM study WHERE state = ? ORDER BY study"
        return [row[0] for row in self._db.execute(query, (state.value,))]

    def files(self, study: str) -> list[File]:
        """The originals of one study, by number."""
        return list(self._files("study = ?", (study,)))

    def known(self, people: int) -> dict[str, list[Lost]]:
        """By patient, the names and numbers that all files of these people say."""
        query = (
            "SELECT n.sealed FROM named n JOIN study s USING (study) WHERE s.people = ? GROUP BY n.mark ORDER BY n.mark"
        )
        rows = self._db.execute(query, (people,)).fetchall()
        everything = list(dict.fromkeys(one for row in rows for one in decode_lost(unseal(self._key, row[0]))))
        query = (
            "SELECT DISTINCT o.patient FROM source o JOIN study s USING (study) WHERE s.people = ? AND o.patient <> ''"
        )
        return {row[0]: everything for row in self._db.execute(f"{query} ORDER BY o.patient", (people,))}

    def deidentified(
        self, study: str, results: Iterable[Result], traces: Iterable[Trace], by: Deidentification
    ) -> None:
        """Keep what became of a study's files, and, sealed, what they lost."""
        with self._together():
            for result in results:
                self._keep_result(result)
            self._db.execute("DELETE FROM trace WHERE study = ?", (study,))
            for place, trace in enumerate(traces):
                self._db.execute(
                    "INSERT INTO trace VALUES (?, ?, ?)", (study, place, seal(self._key, encode_trace(trace)))
                )
            self._db.execute(
                "UPDATE study SET profile = ?, profile_fingerprint = ?, engine_version = ? WHERE study = ?",
                (by.profile, by.profile_fingerprint, by.engine_version, study),
            )
            self._step(study, StudyStep.DEIDENTIFY)

    def traces(self, study: str) -> list[Trace]:
        rows = self._db.execute("SELECT sealed FROM trace WHERE study = ? ORDER BY place", (study,)).fetchall()
        return [decode_trace(unseal(self._key, row[0])) for row in rows]

    def searched(self, refused: Mapping[str, Iterable[Result]]) -> None:
        """Keep which files of these studies are refused after all."""
        with self._together():
            for study, results in refused.items():
                for result in results:
                    self._refuse(result.number, result.reasons[0])
                self._step(study, StudyStep.SEARCH)

    def passed(self, study: str) -> list[Passed]:
        """The files of a study that nothing speaks against."""
        query = f"SELECT number, name, {_IDENTITY} FROM source WHERE study = ? AND exclusion IS NULL ORDER BY number"
        return [Passed(row[0], row[1], Identity(*row[2:])) for row in self._db.execute(query, (study,))]

    def refuse(self, numbers: Iterable[int], reason: Exclusion) -> None:
        with self._together():
            for number in numbers:
                self._refuse(number, reason.value)

    def handed_over(self, study: str, patient: str, patient_alone: str, split: str, instances: int) -> None:
        """Core has it."""
        with self._together():
            self._db.execute(
                "UPDATE study SET patient = ?, patient_alone = ?, split = ?, instances = ? WHERE study = ?",
                (patient, patient_alone, split, instances, study),
            )
            self._step(study, StudyStep.HAND_OVER)

    def wait(self, study: str) -> None:
        """A study met a defect of ours: its verdicts are void, its originals stay."""
        with self._together():
            self._db.execute("UPDATE source SET name = '' WHERE study = ?", (study,))
            self._db.execute("DELETE FROM trace WHERE study = ?", (study,))
            self._step(study, StudyStep.WAIT)

    def retry(self) -> None:
        """Whatever waits is tried again; a file of which not even the study is known is asked once more."""
        with self._together():
            for study in self.studies(StudyState.WAITING):
                self._step(study, StudyStep.RETRY)
            self._db.execute(
                "UPDATE source SET surveyed = 0, exclusion = NULL WHERE study = '' AND destroyed = 0 AND exclusion = ?",
                (_DEFECT,),
            )

    def too_late(self) -> list[tuple[int, str]]:
        """Files that turned out, on another try, to be of a study that is beyond taking them up."""
        query = (
            "SELECT number, quarantined FROM source JOIN study s USING (study)"
            " WHERE s.state <> ? AND name = '' AND exclusion IS NULL"
        )
        return self._db.execute(query, (StudyState.TAKEN_IN.value,)).fetchall()

    def give_up(self, study: str) -> None:
        """Nobody waits for this study any more: what nothing else spoke against is refused for our defect."""
        self._db.execute("UPDATE source SET exclusion = ? WHERE study = ? AND exclusion IS NULL", (_DEFECT, study))

    # --- forgetting

    def sealed(self, study: str) -> Iterator[list[tuple[int, str]]]:
        """Number and quarantine name of the originals of a study that are not destroyed, in pages. Of what belongs to
        no study those are kept that met a defect of ours."""
        query = "SELECT number, quarantined FROM source WHERE study = ? AND quarantined IS NOT NULL AND destroyed = 0"
        query += "" if study else f" AND exclusion <> '{_DEFECT}'"
        last = 0
        while rows := self._db.execute(
            f"{query} AND number > ? ORDER BY number LIMIT ?", (study, last, _PAGE)
        ).fetchall():
            yield rows
            last = rows[-1][0]

    def sealed_defects(self) -> list[tuple[int, str]]:
        """The same of what belongs to no study and met a defect of ours."""
        query = "SELECT number, quarantined FROM source WHERE study = '' AND destroyed = 0 AND exclusion = ?"
        return self._db.execute(query, (_DEFECT,)).fetchall()

    def destroyed(self, numbers: Iterable[int]) -> None:
        """These originals are gone."""
        with self._together():
            for number in numbers:
                self._db.execute("UPDATE source SET destroyed = 1 WHERE number = ?", (number,))

    def forget(self, study: str) -> None:
        """Nothing of a study is left but its numbers: its originals are gone. One that core does not have is counted
        under the reason most of its files had. What it lost stays sealed while a file may yet turn out to be of its
        patient."""
        with self._together():
            self._db.execute("UPDATE source SET destroyed = 1 WHERE study = ? AND quarantined IS NOT NULL", (study,))
            if self.study(study).state is not StudyState.HANDED_OVER:
                reasons = self._db.execute(
                    "SELECT exclusion FROM source WHERE study = ? GROUP BY exclusion ORDER BY count(*) DESC, exclusion",
                    (study,),
                ).fetchone()
                self._db.execute("UPDATE study SET reason = ? WHERE study = ?", (reasons[0], study))
            if not self._loose:
                self._db.execute("DELETE FROM trace WHERE study = ?", (study,))
                self._db.execute("DELETE FROM named WHERE study = ?", (study,))
            self._step(study, StudyStep.FORGET)
        self._empty_log()

    def forget_lost(self) -> None:
        """What forgotten studies lost goes, once no study of their patient and no file of nobody knows whom waits."""
        if self._loose:
            return
        over = "SELECT people FROM study GROUP BY people HAVING min(state = ?) = 1"
        with self._together():
            for table in ("trace", "named"):
                self._db.execute(
                    f"DELETE FROM {table} WHERE study IN (SELECT study FROM study WHERE people IN ({over}))",
                    (StudyState.FORGOTTEN.value,),
                )
        self._empty_log()

    def _empty_log(self) -> None:
        """What was deleted stays in no log of writes ahead."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # --- counting

    def count(self, of: str = "source", where: str = "1", *values: str) -> int:
        found: int = self._db.execute(f"SELECT count(*) FROM {of} WHERE {where}", values).fetchone()[0]
        return found

    @property
    def files_done(self) -> int:
        """Files that no study still to be de-identified has."""
        query = "SELECT count(*) FROM source JOIN study s USING (study) WHERE s.state = ?"
        behind: int = self._db.execute(query, (StudyState.TAKEN_IN.value,)).fetchone()[0]
        return self.count() - behind

    @property
    def waiting(self) -> int:
        """Studies that wait for us, and files of which not even the study is known."""
        return self.count("study", "state = ?", StudyState.WAITING.value) + self._loose

    @property
    def _loose(self) -> int:
        return self.count("source", "study = '' AND exclusion = ? AND destroyed = 0", _DEFECT)

    @property
    def sealed_files(self) -> int:
        """Originals there ever were, those destroyed meanwhile too."""
        return self.count(where="quarantined IS NOT NULL")

    @property
    def destroyed_files(self) -> int:
        return self.count(where="destroyed = 1")

    def exclusions(self) -> dict[str, int]:
        """How many files each reason held back."""
        query = "SELECT exclusion, count(*) FROM source WHERE exclusion IS NOT NULL GROUP BY exclusion"
        return dict(self._db.execute(f"{query} ORDER BY exclusion").fetchall())

    def missed(self) -> tuple[Missed, ...]:
        """What the files of published studies lack though the profile means to keep it."""
        query = (
            "SELECT m.keyword, sum(m.elements) FROM missed m JOIN source o USING (number) JOIN study s USING (study)"
            " WHERE o.exclusion IS NULL AND s.instances > 0 GROUP BY m.keyword ORDER BY m.keyword"
        )
        return tuple(Missed(*row) for row in self._db.execute(query))

    def notes(self) -> tuple[Noted, ...]:
        """How many files of published studies each note was made of."""
        query = (
            "SELECT n.note, count(*) FROM noted n JOIN source o USING (number) JOIN study s USING (study)"
            " WHERE o.exclusion IS NULL AND s.instances > 0 GROUP BY n.note ORDER BY n.note"
        )
        return tuple(Noted(*row) for row in self._db.execute(query))

    def studies_excluded(self) -> dict[str, int]:
        query = "SELECT reason, count(*) FROM study WHERE reason <> '' GROUP BY reason ORDER BY reason"
        return dict(self._db.execute(query).fetchall())

    def published(self) -> Iterator[StudyRow]:
        """The studies that core has, by pseudonym."""
        yield from map(_row, self._db.execute("SELECT * FROM study WHERE instances > 0 ORDER BY study"))

    # --- inside

    def _mark(self, path: str) -> bytes:
        return mark(self._key, path.encode("utf-8", "surrogateescape"))

    def _files(self, where: str, values: tuple[str, ...]) -> Iterator[File]:
        last = 0
        query = (
            f"SELECT number, quarantined, exclusion FROM source WHERE {where} AND number > ? ORDER BY number LIMIT ?"
        )
        while rows := self._db.execute(query, (*values, last, _PAGE)).fetchall():
            for number, quarantined, exclusion in rows:
                yield File(number, quarantined or "", exclusion if quarantined is None else None)
            last = rows[-1][0]

    def _keep_result(self, result: Result) -> None:
        if result.exclusion is not None:
            self._refuse(result.number, result.exclusion)
            return
        self._db.execute("DELETE FROM missed WHERE number = ?", (result.number,))
        for keyword, elements in result.missed.items():
            self._db.execute("INSERT INTO missed VALUES (?, ?, ?)", (result.number, keyword, elements))
        self._db.execute("DELETE FROM noted WHERE number = ?", (result.number,))
        self._db.executemany("INSERT INTO noted VALUES (?, ?)", [(result.number, note) for note in result.notes])
        self._db.execute(
            f"UPDATE source SET exclusion = NULL, name = ?, {_assign(_IDENTITY)} WHERE number = ?",
            (result.name, *_values(result.identity), result.number),
        )

    def _refuse(self, number: int, reason: str) -> None:
        self._db.execute("UPDATE source SET exclusion = ?, name = '' WHERE number = ?", (reason, number))

    def _step(self, study: str, step: StudyStep) -> None:
        state = advance_study(self.study(study).state, step)
        self._db.execute("UPDATE study SET state = ? WHERE study = ?", (state.value, study))


def _row(row: tuple) -> StudyRow:  # type: ignore[type-arg]
    return StudyRow(row[0], StudyState(row[1]), *row[2:])


def _assign(columns: str) -> str:
    return ", ".join(f"{column} = ?" for column in columns.split(", "))


def _values(one: Identity) -> tuple[str | int, ...]:
    return (
        one.patient, one.patient_alone, one.study, one.study_uid, one.series, one.instance, one.series_number,
        one.instance_number,
    )  # fmt: skip
