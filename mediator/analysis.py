"""What a permit says about local analyses: which files may be declared, and the rules their tables are held to.

The rules are those of statistical disclosure control as the SDC Handbook (Griffiths et al., 2019, chapters 2 to 4)
has them, and `acro` after it (Green, Ritchie, Smith et al., "ACRO: a multi-language toolkit for supporting automated
checking of research outputs", 2023); its defaults are threshold 10, n 2, k 90 %, p 10 %.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from mediator.grammar import WORD, check_number, check_unique

FileType = Literal["csv", "json"]

# A column is named as a program names it. Longer names, capitals and digits begin to carry something.
COLUMN = re.compile(r"[a-z][a-z_]{0,23}[0-9]{0,2}")
_WORD = re.compile(WORD)
# The strategy of a run order that asks for an analysis at each site by itself: one round, and no hub asks.
LOCAL = "local"
# A sum over a label's words. No permit may use it for anything else.
TOTAL = "total"
# A category names a group; with more than this it begins to name people.
MAX_WORDS = 50
MAX_FILES = 32
# A table of a thousand rows has 100 kB; what is larger is a data set.
MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True)
class LabelSpec:
    """A text column that a table may have, and every word that may stand in it (besides `total`, a sum over them)."""

    name: str
    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if not COLUMN.fullmatch(self.name):
            raise ValueError("a label's name is lower case letters and underscores, and two digits at most")
        if not 0 < len(self.words) <= MAX_WORDS or not all(map(_WORD.fullmatch, self.words)):
            raise ValueError(f"a label has 1 to {MAX_WORDS} short words")
        if len(set(self.words)) != len(self.words) or TOTAL in self.words:
            raise ValueError(f"a label's words are different from one another, and none is {TOTAL!r}")


@dataclass(frozen=True)
class AnalysisRules:
    """The part of a permit that grants analyses. All numbers are the most, or the least, that may leave.

    `size_bytes` counts one run's files together, `rows` and `columns` one table; `digits` are significant digits.
    `threshold`: the fewest patients behind a number. Dominance, for sums: the `dominance_n` largest contributors
    together hold less than `dominance_k` percent of the sum, and what remains without the two largest is at least
    `p_percent` percent of the largest. `reviewers` is how many persons must agree.
    """

    split: Literal["train", "test"]
    types: tuple[FileType, ...]
    files: int
    size_bytes: int
    rows: int
    columns: int
    digits: int
    threshold: int
    dominance_n: int
    dominance_k: float
    p_percent: float
    labels: tuple[LabelSpec, ...]
    reviewers: Literal[1, 2]

    def __post_init__(self) -> None:
        check_unique(self.types, "a type of file")
        check_unique((label.name for label in self.labels), "a label")
        if not (1 <= self.files <= MAX_FILES and 1 <= self.size_bytes <= MAX_FILES * MAX_FILE_BYTES):
            raise ValueError(f"an analysis leaves 1 to {MAX_FILES} files of at most {MAX_FILE_BYTES} bytes each")
        if not (1 <= self.rows <= 10_000 and 1 <= self.columns <= 100 and 1 <= self.digits <= 9):
            raise ValueError("a table has 1 to 10000 rows and 1 to 100 columns, of 1 to 9 significant digits")
        if self.threshold < 2:
            raise ValueError("a threshold below 2 lets one person through")
        check_number(self.threshold, "threshold")
        if not (1 <= self.dominance_n <= 5 and 0 < self.dominance_k < 100 and 0 < self.p_percent <= 100):
            raise ValueError("dominance needs n of 1 to 5, k below 100 % and p up to 100 %")

    def words_of(self, label: str) -> frozenset[str]:
        """The words of a label, none for a label the permit does not name."""
        return frozenset(word for entry in self.labels if entry.name == label for word in entry.words)
