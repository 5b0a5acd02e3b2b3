"""`cloister deid check`: is every series of a folder whole, and which pictures are there twice.

1. Headers alone say whether a series has gaps, doubles or strangers, and which files nobody here can read.
2. Fingerprints of decoded pixels (in the reader process) say which pictures are the same, whatever they are wrapped in.
3. A file is `src#0042`, a series `series#0007`, numbered in the order of paths: nothing of what they hold is told.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.deid.pipeline import File
from node.deid.pixels.duplicates import KEY_BYTES, SeenPixels
from node.deid.pixels.reader import ReaderDied, ReaderProcess
from node.deid.pixels.series import SeriesFinding, integrity, read_slice

DUPLICATE, SEEN_BEFORE, NOT_DECODED = "duplicate_pixels", "pixels_seen_before", "pixels_not_decoded"


@dataclass(frozen=True)
class FolderFinding:
    """One finding: which files, what, and of which other file they are a copy."""

    finding: str
    sources: tuple[str, ...]
    series: str = ""
    same_as: str = ""

    def line(self) -> dict[str, Any]:
        told: dict[str, Any] = {"finding": self.finding, "sources": list(self.sources)}
        return told | {name: value for name in ("series", "same_as") if (value := getattr(self, name))}


def check_folder(
    source: Path, files: Sequence[File], *, pixels: bool, key: bytes | None = None, store: Path | None = None
) -> Iterator[FolderFinding]:
    """Every finding of a folder. Without a key, copies are found among these files alone. Raises `OSError`."""
    readable = [file for file in files if file.refused is None]
    yield from _series(source, readable)  # (1)
    if pixels:
        yield from _duplicates(source, readable, key or secrets.token_bytes(KEY_BYTES), store if key else None)  # (2)


def summary(files: Sequence[File], found: Sequence[FolderFinding]) -> dict[str, Any]:
    """How many files there are, and how many findings of each kind."""
    return {"files": len(files), "findings": dict(sorted(Counter(one.finding for one in found).items()))}


def _series(source: Path, files: Sequence[File]) -> Iterator[FolderFinding]:
    slices = [read_slice(source / file.path) for file in files]
    members: dict[str, list[str]] = {}
    for file, one in zip(files, slices, strict=True):
        if one is None:
            yield FolderFinding(SeriesFinding.HEADER.value, (file.label,))
        else:
            members.setdefault(one.series, []).append(file.label)
    findings = integrity(one for one in slices if one is not None)
    for number, (series, labels) in enumerate(members.items(), start=1):
        for finding in findings.get(series, ()):
            yield FolderFinding(finding.value, tuple(labels), f"series#{number:04d}")


def _duplicates(source: Path, files: Sequence[File], key: bytes, store: Path | None) -> Iterator[FolderFinding]:
    known, first = SeenPixels(store), dict[bytes, str]()
    reader = ReaderProcess()
    try:
        for file in files:
            try:
                digest = reader.fingerprints([source / file.path], key)[0]
            except ReaderDied:
                digest = None
            if digest is None:
                yield FolderFinding(NOT_DECODED, (file.label,))
            elif digest in first:
                yield FolderFinding(DUPLICATE, (file.label,), same_as=first[digest])
            else:
                first[digest] = file.label
                if known.add(digest):
                    yield FolderFinding(SEEN_BEFORE, (file.label,))
    finally:
        reader.close()
