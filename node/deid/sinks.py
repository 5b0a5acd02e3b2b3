"""Where what passed gate 0 goes: DST and DST.review beside it, or one study's folder of an import."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from mediator.errors import UsageFault
from node.deid.outcome import Identity
from node.deid.pipeline import File


@dataclass(frozen=True)
class FolderSink:
    """A run's folders. All of it lies beside DST, so that DST holds instances and nothing else.

    As a context: DST is there, and nothing of an earlier run is under way; at the end nothing of this one is.
    """

    output: Path

    @property
    def review(self) -> Path:
        return self.output.with_name(f"{self.output.name}.review")

    @property
    def partial(self) -> Path:
        return self.output.with_name(f".{self.output.name}.partial")

    @property
    def report(self) -> Path:
        return self.output.with_name(f"{self.output.name}.report.jsonl")

    @property
    def summary(self) -> Path:
        return self.output.with_name(f"{self.output.name}.summary.json")

    def __enter__(self) -> FolderSink:
        try:
            if self.partial.exists():
                shutil.rmtree(self.partial)
            self.partial.mkdir(mode=0o700, parents=True)
            self.output.mkdir(mode=0o750, exist_ok=True)
        except OSError as error:
            raise UsageFault(f"DST cannot be written: {error.strerror}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.partial, ignore_errors=True)

    def begin(self, files: Sequence[File]) -> None:
        """Other batches are under way in the same folder: only what is of these files goes."""
        for file in files:
            (self.partial / _draft(file.number)).unlink(missing_ok=True)

    def draft(self, number: int, identity: Identity) -> str:
        """One for each original: which of two that are the same instance passes is decided when both are finished."""
        return _draft(number)

    def name(self, identity: Identity) -> str:
        return f"{identity.patient}/{identity.study_uid}/{identity.series}/{identity.instance}.dcm"

    def place(self, name: str, *, review: bool) -> Path:
        return (self.review if review else self.output) / name


@dataclass(frozen=True)
class StudySink:
    """The staging folder of one study, which nobody else writes to. Whole or of no use: broken off, it is emptied."""

    folder: Path

    @property
    def partial(self) -> Path:
        return self.folder / ".partial"

    def begin(self, files: Sequence[File]) -> None:
        self.partial.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self.partial.glob("*.part*"):
            left.unlink()

    def draft(self, number: int, identity: Identity) -> str:
        """One for each instance: the second of two is a double whatever becomes of the first."""
        return f"{identity.study}-{identity.instance}.part"

    def name(self, identity: Identity) -> str:
        return f"{identity.instance}.dcm"

    def place(self, name: str, *, review: bool) -> Path:
        return self.folder / name

    def tidy(self) -> None:
        """Once the study is done: nothing is under way any more."""
        shutil.rmtree(self.partial, ignore_errors=True)


def _draft(number: int) -> str:
    return f"{number}.part"


def move(path: Path, target: Path) -> bool:
    """Into place, never over another file; True also when the same file is there already."""
    target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    try:
        os.link(path, target, follow_symlinks=False)
        return True
    except FileExistsError:
        return not target.is_symlink() and filecmp.cmp(path, target, shallow=False)
    finally:
        path.unlink()
