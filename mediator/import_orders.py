"""What a hospital orders to be taken in, and what is reported back: values that name no patient."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from mediator.grammar import WORD, check_identifier, check_tool
from mediator.types import ADDED, Study

_COLUMN = re.compile(r"[a-z][a-z0-9_]{0,31}")
_CATEGORY = re.compile(WORD)
# Columns of every clinical table that we make ourselves.
RESERVED_COLUMNS = frozenset({"study", "patient", "split"})
# A category names a group. With more than this it begins to name people.
MAX_CATEGORIES = 20


@dataclass(frozen=True)
class Column:
    """One clinical column that may survive: a number within bounds, or one of few listed categories."""

    name: str
    kind: Literal["number", "category"] = "number"
    minimum: float = -1000.0
    maximum: float = 1000.0
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _COLUMN.fullmatch(self.name) or self.name in RESERVED_COLUMNS:
            raise ValueError("a clinical column's name is lower case, and not study, patient or split")
        if not self.minimum <= self.maximum:
            raise ValueError("a clinical column's minimum is not above its maximum")
        if len(self.categories) > MAX_CATEGORIES or not all(map(_CATEGORY.fullmatch, self.categories)):
            raise ValueError(f"a clinical column has at most {MAX_CATEGORIES} short categories")
        if (self.kind == "category") != bool(self.categories):
            raise ValueError("categories are listed for a column of categories, and only there")

    def accept(self, text: str) -> float | str | None:
        """The value, or None for what the order does not allow (an empty text too)."""
        text = text.strip()
        if self.kind == "category":
            return text if text in self.categories else None
        try:
            value = float(text)
        except ValueError:
            return None
        return value if math.isfinite(value) and self.minimum <= value <= self.maximum else None


@dataclass(frozen=True)
class IngestOrder:
    """Take this folder in, under this profile, as this dataset.

    `source` is an absolute folder; `clinical` a CSV file inside it with the columns PatientID and StudyInstanceUID.
    A share `test_fraction` of the labelled patients is held out; a study is labelled when it has a value in every one
    of `columns`. `defaced_by`: the program that took the faces off before, as the steward says who gives the order.
    """

    KIND: ClassVar[str] = "cloister.ingest-order"
    VERSION: ClassVar[int] = 1

    order: str
    site: str
    project: str
    dataset: str
    source: str
    profile: str
    clinical: str | None
    columns: tuple[Column, ...]
    test_fraction: float
    defaced_by: str = field(default="", metadata=ADDED)

    def __post_init__(self) -> None:
        for what in ("order", "site", "project", "dataset"):
            check_identifier(getattr(self, what), what)
        if not self.source.startswith("/") or ".." in self.source.split("/"):
            raise ValueError("the source folder is an absolute path, without ..")
        if self.defaced_by:
            check_tool(self.defaced_by, "what defaced the images")
        if not 0 <= self.test_fraction < 1:
            raise ValueError("test_fraction is at least 0 and below 1")
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names) or (names and self.clinical is None):
            raise ValueError("clinical columns are named once each, and come from a clinical file")


@dataclass(frozen=True)
class Missed:
    """How many elements of one keyword the published files lack, though the profile means to keep them."""

    keyword: str
    elements: int


@dataclass(frozen=True)
class Noted:
    """How many published files a note was made of: how they were read, or what was said of them, and by whom done."""

    note: str
    files: int


@dataclass(frozen=True)
class IngestReport:
    """What came of an order. Every instance and every study is either published or counted under one reason.

    `studies_excluded` counts studies of which no instance passed, under the reason most of their instances had.
    `clinical_refused` counts values of a column that the order did not allow. `destroyed` counts quarantined files.
    """

    KIND: ClassVar[str] = "cloister.ingest-report"
    VERSION: ClassVar[int] = 1

    order: str
    site: str
    project: str
    dataset: str
    profile: str
    profile_fingerprint: str
    engine_version: str
    instances_in: int
    instances_published: int
    instances_excluded: Mapping[str, int]
    studies_in: int
    studies_published: int
    studies_excluded: Mapping[str, int]
    columns: Mapping[str, str]
    clinical_refused: Mapping[str, int]
    destroyed: int
    studies: tuple[Study, ...]
    missed: tuple[Missed, ...] = field(default=(), metadata=ADDED)
    notes: tuple[Noted, ...] = field(default=(), metadata=ADDED)
    defaced_by: str = field(default="", metadata=ADDED)
