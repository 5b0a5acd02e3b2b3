"""The images an engine holds, for hospital IT at the command line: take one in, hand one out, fetch one.

The broker has none of this: it can neither load an image nor fetch one, whoever asks it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from containers import archive
from containers.archive import Archived
from containers.engine import ContainerEngine, _asking
from mediator.errors import EngineUnavailable, IntegrityBroken, UsageFault
from mediator.images import MAX_LISTED, ImageFacts, Origin, printable

# an engine packs a whole image before it sends the first byte: minutes, for tens of gigabytes on a slow disk
_TIMEOUT_S = 1800.0


class ImageStore(ContainerEngine):
    """One engine's images, through its socket, which this user must be able to open."""

    def __init__(self, url: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        path = url.removeprefix("unix://")
        if Path(path).exists() and not os.access(path, os.W_OK):
            raise UsageFault(
                f"this user may not open the container engine's socket {path}",
                hint="run as root, or as a user whom the engine serves",
            )
        super().__init__(url, timeout_s=timeout_s)
        self.url = url

    def missing(self, images: Iterable[Archived]) -> list[Archived]:
        """Those that the engine does not hold."""
        return [each for each in images if self.image(each.facts.image) is None]

    def load(self, path: Path, images: Sequence[Archived], progress: Callable[[int], None]) -> None:
        """Give the engine these images of the archive, made anew from what was verified. `confirm` them afterwards."""
        pieces = archive.rebuilt(path, images, progress)
        with _asking("load the image"):
            for said in self._api.load_image(pieces):
                if "error" in said or "errorDetail" in said:
                    raise EngineUnavailable("the container engine could not load the image", hint="see its log")

    def confirm(self, facts: ImageFacts) -> None:
        """Raise `IntegrityBroken` unless the engine holds this image and says of it what was read."""
        held, config = self.image(facts.image), facts.parsed
        program = bool(config.entrypoint or config.command)
        if held is None or (held.id, held.has_program) != (facts.image, program) or (
            tuple(printable(name) for name in held.volumes) != config.volumes
        ):  # fmt: skip
            raise IntegrityBroken(
                "the engine does not hold the image under the digest that was verified",
                hint="an engine that names images by their manifests (containerd's image store) cannot be used",
            )

    def export(self, digest: str, *, architecture: str, progress: Callable[[int], None]) -> ImageFacts:
        """The facts of an image the engine holds, read from what it hands out. Raises `UsageFault` if it holds none."""
        held = self.image(digest)
        if held is None:
            raise UsageFault("the container engine holds no image with this digest", hint="give its id (sha256:…)")
        with _asking("hand out the image"):
            pieces = self._api.get_image(held.id, chunk_size=1 << 20)
            stream = io.BufferedReader(_Pieces(pieces, progress), 1 << 20)
            found = archive.read_stream(stream, architecture=architecture)
        if [each.facts.image for each in found] != [held.id]:
            raise IntegrityBroken("the container engine handed out another image than it was asked for")
        names, manifests = self._names(held.id)
        # a permit may also name the digest under which a registry had it
        manifest = digest if digest in manifests else min(manifests, default=None)
        facts = replace(found[0].facts, names=names, manifest=manifest)
        self.confirm(facts)
        return facts

    def size_bytes(self, digest: str) -> int:
        """About how much `export` will read; 0 for an image that is not there."""
        held = self.image(digest)
        with _asking("look at an image"):
            return 0 if held is None else int(self._api.inspect_image(held.id).get("Size") or 0)

    def pull(self, name: str, digest: str, progress: Callable[[str, int, int], None]) -> None:
        """Have the engine fetch `name@digest`; `progress(layer, done, total)` hears of bytes as they come.

        Raises `EngineUnavailable` when it does not: unknown to the registry, no access, no answer.
        """
        with _asking("fetch the image"):
            for said in self._api.pull(f"{name}@{digest}", stream=True, decode=True):
                if "error" in said or "errorDetail" in said:
                    raise EngineUnavailable(
                        "the container engine could not fetch the image",
                        hint="is the name right, may this site read it (docker login), does the registry answer?",
                    )
                detail = said.get("progressDetail") or {}
                if isinstance(said.get("id"), str) and detail.get("total"):
                    progress(said["id"], int(detail.get("current") or 0), int(detail["total"]))
        if self.image(digest) is None:
            raise IntegrityBroken("the container engine does not hold what it was asked to fetch")

    def _names(self, image: str) -> tuple[tuple[str, ...], frozenset[str]]:
        with _asking("look at an image"):
            found = self._api.inspect_image(image)
        digests = [entry.partition("@")[2] for entry in found.get("RepoDigests") or []]
        tags = sorted(printable(name) for name in found.get("RepoTags") or [])
        return tuple(tags[:MAX_LISTED]), frozenset(each for each in digests if each)


def with_origin(facts: ImageFacts, origin: Origin, lineage: str) -> ImageFacts:
    """The same facts with where they came from. Raises `UsageFault` for a lineage that cannot be printed."""
    try:
        return replace(facts, origin=origin, lineage=lineage)
    except ValueError as error:
        raise UsageFault(f"--lineage: {error}") from None


class _Pieces(io.RawIOBase):
    """An engine's answer, piece by piece, as a file."""

    def __init__(self, pieces: Iterator[bytes], progress: Callable[[int], None]) -> None:
        self._pieces = pieces
        self._progress = progress
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._progress(len(piece))
            self._rest = piece
        size = min(len(into), len(self._rest))
        into[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
