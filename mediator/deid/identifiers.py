"""A patient's own names and numbers, and those of whoever treated them: no terms for this patient, whatever lists say.

1. A name goes by its words: whole from two letters on, inside another word from four (`Li` leaves LIVER, `Rain` no
   BRAIN). Particles (`van`, `al`) go as words, too, but do not make a sentence somebody's, unless they are all of a
   name (`Le^Van`).
2. A number (PatientID, AccessionNumber, an order's) goes whole, by its parts that hold a digit, and by words of four
   letters that stand free in it: `LUNG-012` is no reason to lose the lung. One without any digit is a name. Inside
   another word from four characters on, from three where letters and digits meet (`N45` in `N45a`).
   A word ends where letters and digits meet: Wu and Li stand in `Wu1` and `2Li`, number 123 in `T123`. Beside letters a
   number of fewer than three digits (`T33`, `33mm`) cannot be told from a measure, and stays.
3. Letter case, accents and ligatures make no other name, nor does ä, ae or a (`Müller`, `MUELLER`, `Muller`); a name
   written in pieces (`White Head`) or in one (`vanderberg`) is that name.
4. A number of five digits or more is one in any VR: as SeriesNumber, `0077001234`, `77001234.0` or four bytes.
5. What stands for nobody (`Anonymous`, `Unknown`) names nobody; a long keyed number holds four digits by chance,
   and a short name between digits.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from mediator.deid.tables import Standard

# an order's number without a digit says what was done (`CTHEAD`), not for whom
Kind = Literal["name", "number", "order"]

# Elements other than those of VR PN that name a person of this hospital's care, by keyword (PS3.6).
NUMBERS = frozenset({
    "PatientID", "OtherPatientIDs", "AccessionNumber", "AdmissionID", "ServiceEpisodeID", "MedicalRecordLocator",
    "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID", "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest", "PlacerOrderNumberProcedure", "FillerOrderNumberProcedure",
})  # fmt: skip
ORDERS = frozenset({"StudyID", "RequestedProcedureID", "ScheduledProcedureStepID", "PerformedProcedureStepID"})
SHORTEST, SHORTEST_INSIDE, _SHORTEST_MIXED = 2, 4, 3
SHORTEST_NUMBER = 5  # shorter ones are among a header's own numbers by chance
_MOST_TOGETHER = 4  # words of one name
_NOBODY = frozenset({"anonymous", "anonymized", "anonymised", "removed", "unknown", "none", "null", "nobody"})
# Of names and titles, and words of sentences.
PARTICLES = frozenset({
    "van", "von", "der", "den", "dem", "de", "del", "della", "di", "da", "do", "dos", "das", "du", "des", "la",
    "le", "les", "el", "al", "bin", "ibn", "ben", "abu", "ter", "ten", "te", "zu", "zum", "zur", "af", "av", "san",
    "st", "mac", "mc", "dr", "prof", "mr", "mrs", "ms", "md", "phd", "jr", "sr", "ii", "iii", "of", "the", "and",
    "in", "op", "aan",
})  # fmt: skip
_NO_WORDS: frozenset[str] = frozenset()
_WORDS = re.compile(r"[^\W_]+")
# words inside a word, where letters and digits meet (2)
_RUNS = re.compile(r"[^\W\d_]{2,}|\d{3,}")
_DIGITS = re.compile(r"\d+", re.ASCII)
_NUMERAL = re.compile(r"[+-]?0*(\d+)(?:\.0*)?", re.ASCII)
_PARTS = re.compile(r"[\s\\^=,;:/]+")
_KEYED = re.compile(r"[0-9a-f]{16,}")
# ours: an accession number or label, of base32, and a pseudonym behind whatever a profile puts before it
_OURS = re.compile(r"^[a-z2-7]{16}$|[0-9a-f]{32}$")
# what folding an accent away does not reach
_LETTERS = str.maketrans({"æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"})
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})
_WRITTEN_OUT = re.compile(r"ae|oe|ue|aa")


@dataclass(frozen=True)
class Identifier:
    """One of them, as it stood in an element. Identifying."""

    kind: Kind
    text: str

    def __repr__(self) -> str:
        return f"Identifier({self.kind})"


class Opaque(bytes):
    """A lost value of which nobody says that it is text: a number's bytes may read like a word (0.9 is `fff?`).

    It equals no text: whoever lost the same bytes as text has lost something else.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and bytes.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((Opaque, bytes(self)))


Lost = bytes | Identifier
"""What a file of a patient lost, for the patient's other files: a value to search for, or one that is no term."""


def identifying(standard: Standard) -> Mapping[int, Kind]:
    """The elements that hold a person's name or number, by tag."""
    found: dict[int, Kind] = {tag: "name" for tag, element in standard.elements.items() if element.vrs == ("PN",)}
    for element in standard.elements.values():
        if element.keyword in NUMBERS | ORDERS:
            found[element.tag] = "order" if element.keyword in ORDERS else "number"
    return found


def fold(text: str) -> str:
    """Text as names are compared. (3)"""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFC", text).casefold()).translate(_LETTERS)
    return "".join([letter for letter in plain if not unicodedata.combining(letter)])


class Own:
    """All identifiers of one patient's files so far."""

    def __init__(self, identifiers: Iterable[Identifier] = ()) -> None:
        self.identifiers = frozenset(identifiers)
        self._answers: dict[str, bool] = {}

    def __repr__(self) -> str:
        return f"Own({len(self.identifiers)} identifiers)"

    def __bool__(self) -> bool:
        return bool(self.identifiers)

    def is_word(self, word: str) -> bool:
        """Whether a single word is one of these, or has one in it."""
        if not self.identifiers:
            return False
        if (answer := self._answers.get(word)) is None:
            self._answers[word] = answer = self._is(fold(word))
        return answer

    def stand_in(self, words: Sequence[str]) -> bool:
        """Whether one of these is among words that follow one another, or several of them together. (3)"""
        return bool(self.identifiers) and (any(map(self.is_word, words)) or bool(self._joined(words)))

    def without(self, words: Sequence[str]) -> list[str]:
        """The words that are none of these, not even together."""
        if not self.identifiers:
            return list(words)
        kept = [word for word in words if not self.is_word(word)]
        while joined := self._joined(kept):
            kept = [word for number, word in enumerate(kept) if number not in joined]
        return kept

    def name(self, text: str, *, cleaned: bool = False) -> bool:
        """Whether a text has one of these in it. One that nobody cleaned may hold a particle: it is a sentence."""
        if not self.identifiers:
            return False
        words = _WORDS.findall(fold(text))
        told = (self._is(word, _NO_WORDS if cleaned else self._particles) for word in words)
        return any(told) or bool(self._joined(words))

    def is_number(self, numeral: str) -> bool:
        """Whether a number, as text, is one of these, of five digits or more. (4)"""
        if not self.numbers:
            return False
        if (found := _NUMERAL.fullmatch(numeral)) is not None:
            return found[1] in self.numbers
        try:
            return float(numeral).is_integer() and str(abs(int(float(numeral)))) in self.numbers
        except (ValueError, OverflowError):
            return False

    @cached_property
    def numbers(self) -> frozenset[str]:
        """Those of five digits or more, without leading zeros."""
        runs = (run.lstrip("0") for word in self._whole for run in _DIGITS.findall(word))
        return frozenset(run for run in runs if len(run) >= SHORTEST_NUMBER)

    def _is(self, folded: str, but: frozenset[str] = _NO_WORDS) -> bool:
        if folded in but:
            return False
        if folded in self._whole:
            return True
        if _KEYED.fullmatch(folded):
            return False
        inside = self._inside
        if inside is not None and inside.search(folded) is not None:
            return True
        return any(run in self._whole and run not in but for run in _RUNS.findall(_OURS.sub("", folded)))

    def _joined(self, words: Sequence[str]) -> range:
        """The places of the first words that only together are one of these."""
        folded = [fold(word) for word in words]
        for first in range(len(folded) - 1):
            for end in range(first + 2, min(first + _MOST_TOGETHER, len(folded)) + 1):
                if (whole := "".join(folded[first:end])) in self._whole and len(whole) >= SHORTEST_INSIDE:
                    return range(first, end)
        return range(0)

    @cached_property
    def _particles(self) -> frozenset[str]:
        """Less those that are all of somebody's family or given name: Le, Do and Van are."""
        groups = [group for one in self.identifiers if one.kind == "name" for group in one.text.split("=")]
        parts = [_WORDS.findall(fold(part)) for group in groups for part in group.split("^")[:2]]
        return PARTICLES.difference(*(part for part in parts if PARTICLES.issuperset(part)))

    @cached_property
    def _whole(self) -> frozenset[str]:
        return frozenset(word for one in self.identifiers for word in _words(one))

    @cached_property
    def _inside(self) -> re.Pattern[str] | None:
        parts = sorted(filter(_counts_inside, self._whole))
        return re.compile("|".join(map(re.escape, parts))) if parts else None


NOBODYS = Own()


def _words(identifier: Identifier) -> set[str]:
    """What one identifier is looked for by, folded."""
    text = unicodedata.normalize("NFC", identifier.text).strip(" \0")
    found: set[str] = set()
    if identifier.kind == "order" and not any(map(str.isdigit, text)):
        return found
    named = identifier.kind == "name" or "^" in text or not any(map(str.isdigit, text))
    for part in _PARTS.split(text):
        pieces = _WORDS.findall(part)
        if (len(pieces) > 1 or not named) and any(map(str.isdigit, part)):
            found |= {fold(piece) for piece in pieces if any(map(str.isdigit, piece))}  # (2)
            found.add(fold("".join(pieces)))
        elif named or (len(pieces) == 1 and len(part) >= SHORTEST_INSIDE):
            found |= {word for piece in pieces for word in _spellings(piece)}
            found |= {word for piece in pieces for word in _spellings(piece.strip("0123456789"))}
    if not named:
        found.add(fold("".join(_WORDS.findall(text))))
    for group in re.split(r"[\^=]", text) if named else ():
        found |= _together(_WORDS.findall(group))
    found |= {word.lstrip("0") for word in found if word.isdigit()}
    return {word for word in found if _is_long(word) and word.strip("0") and word not in _NOBODY}


def _together(pieces: Sequence[str]) -> set[str]:
    """Words of a name written as one (`vanderberg`)."""
    runs = (pieces[at : at + count] for at in range(len(pieces)) for count in range(2, _MOST_TOGETHER + 1))
    joined = ("".join(run) for run in runs if not PARTICLES.issuperset(map(fold, run)))
    return {word for run in joined for word in _spellings(run) if len(word) >= SHORTEST_INSIDE}


def _spellings(word: str) -> set[str]:
    """A word of a name as it may be typed elsewhere. (3)"""
    found = {fold(word), fold(word.casefold().translate(_UMLAUTS))}
    short = {_WRITTEN_OUT.sub(lambda pair: pair[0][0], one) for one in found}
    return found | {one for one in short if len(one) >= SHORTEST_INSIDE}


def _is_long(word: str) -> bool:
    """Letters of other scripts are words by themselves."""
    return len(word) >= SHORTEST or not word.isascii()


def _counts_inside(word: str) -> bool:
    if len(word) >= SHORTEST_INSIDE or not word.isascii():
        return True
    return len(word) == _SHORTEST_MIXED and not word.isalpha() and not word.isdigit()
