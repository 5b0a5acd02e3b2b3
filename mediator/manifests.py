"""The documents of dataset versions whose studies stand once: `manifest.json` of version 2, and a study's `study.json`.

Both keep what they are named by: `leaves` are the leaves of the Merkle tree (RFC 9162), in order, each a canonical JSON
array. A study's are `[name, size, sha256]` of its files; a version's `["study", pseudonym, patient, split, instances,
root]` of its studies, then `["table", name, size, sha256]`. So a version of a million files has one leaf a study, and
its id covers every byte of them all the same. Roots and ids are computed and compared in `mediator.datasets`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from mediator.grammar import INSTANCE, PSEUDONYM, check_digest, check_hex256, check_identifier
from mediator.types import DatasetFile, Manifest

Split = Literal["train", "test", "unlabelled"]
Leaf: TypeAlias = tuple[Any, ...]  # strings and whole numbers

_PSEUDONYM = re.compile(PSEUDONYM)
_INSTANCE = re.compile(INSTANCE)
_TABLE = re.compile(r"[a-z][a-z0-9_]{0,31}\.parquet")
_SPLITS = frozenset(get_args(Split))


@dataclass(frozen=True, order=True)
class Deidentification:
    """What de-identified a study: the profile, its fingerprint (which covers the engine too), the engine's version."""

    profile: str
    profile_fingerprint: str
    engine_version: str

    def __post_init__(self) -> None:
        check_hex256(self.profile_fingerprint, "profile fingerprint")


@dataclass(frozen=True)
class StudyRecord:
    """`study.json`: the files of one study, beside them what made them. `root` is over the files alone."""

    KIND: ClassVar[str] = "cloister.study"
    VERSION: ClassVar[int] = 1

    root: str
    deidentification: Deidentification
    leaves: tuple[Leaf, ...]

    def __post_init__(self) -> None:
        check_hex256(self.root, "root of a study")
        if not self.leaves:
            raise ValueError("a study has files")
        for leaf in self.leaves:
            _check_file(leaf, _INSTANCE)
        _check_order(leaf[0] for leaf in self.leaves)

    @cached_property
    def files(self) -> tuple[DatasetFile, ...]:
        """The files by name."""
        return tuple(DatasetFile(*leaf) for leaf in self.leaves)

    @property
    def size_bytes(self) -> int:
        return sum(leaf[1] for leaf in self.leaves)


@dataclass(frozen=True)
class StudyEntry:
    """One study of a version: pseudonymous id, patient pseudonym, split, number of files, and the root over them."""

    study: str
    patient: str
    split: Split
    instances: int
    root: str

    def __post_init__(self) -> None:
        if not (_is(self.study, _PSEUDONYM) and _is(self.patient, _PSEUDONYM)):
            raise ValueError("a study of a manifest is not named by a pseudonym")
        if self.split not in _SPLITS or not _is_count(self.instances) or self.instances < 1:
            raise ValueError("a study of a manifest has a split and at least one instance")
        if not isinstance(self.root, str):
            raise ValueError("a study of a manifest has no root")
        check_hex256(self.root, "root of a study")

    @property
    def folder(self) -> str:
        """Where its files lie in a job's view."""
        return f"studies/{self.study}"

    @property
    def leaf(self) -> Leaf:
        return ("study", self.study, self.patient, self.split, self.instances, self.root)


@dataclass(frozen=True)
class ManifestV2:
    """`manifest.json` of version 2. The version's id is the Merkle root over `leaves`.

    `deidentification` has one entry, or as many as a version mixes that was ordered to.
    """

    KIND: ClassVar[str] = Manifest.KIND
    VERSION: ClassVar[int] = 2

    dataset: str
    project: str
    site: str
    dataset_version: str
    created: datetime
    supersedes: str | None
    deidentification: tuple[Deidentification, ...]
    counts: Mapping[str, int]
    excluded: Mapping[str, int]
    columns: Mapping[str, str]
    leaves: tuple[Leaf, ...]

    def __post_init__(self) -> None:
        for what in ("dataset", "project", "site"):
            check_identifier(getattr(self, what), what)
        check_digest(self.dataset_version, "dataset version")
        if not self.deidentification or list(self.deidentification) != sorted(set(self.deidentification)):
            raise ValueError("a manifest says what de-identified its studies, each once and in order")
        _check_order(study.study for study in self.studies)
        for leaf in self._tables:
            if not leaf or leaf[0] != "table":
                raise ValueError("a manifest's leaves are its studies, then its tables")
            _check_file(leaf[1:], _TABLE)
        _check_order(leaf[1] for leaf in self._tables)

    @cached_property
    def studies(self) -> tuple[StudyEntry, ...]:
        """The studies in order of their pseudonyms."""
        return tuple(_study(leaf) for leaf in self.leaves if leaf and leaf[0] == "study")

    @cached_property
    def tables(self) -> tuple[DatasetFile, ...]:
        """The tables by name."""
        return tuple(DatasetFile(*leaf[1:]) for leaf in self._tables)

    @property
    def _tables(self) -> Sequence[Leaf]:
        return self.leaves[len(self.studies) :]


AnyManifest: TypeAlias = Manifest | ManifestV2


def _study(leaf: Leaf) -> StudyEntry:
    if len(leaf) != 6:
        raise ValueError("a study of a manifest is a list of six")
    return StudyEntry(*leaf[1:])


def _check_file(leaf: Leaf, names: re.Pattern[str]) -> None:
    if len(leaf) != 3 or not _is(leaf[0], names) or not _is_count(leaf[1]) or not isinstance(leaf[2], str):
        raise ValueError("a file of a dataset version is a list of its name, size and hash")
    check_hex256(leaf[2], "hash of a file")


def _check_order(names: Iterable[str]) -> None:
    if any(first >= second for first, second in pairwise(names)):
        raise ValueError("what a dataset version holds is listed by name, each once")


def _is(value: object, names: re.Pattern[str]) -> bool:
    return isinstance(value, str) and names.fullmatch(value) is not None


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0
