"""Put a bundle together: the file whose every byte follows from its manifest (`deploy/install/bundle.py` reads it)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy.install import bundle
from deploy.release.keys import SigningKey


@dataclass(frozen=True)
class Source:
    """A file that goes in: where it will stand, what it is, and where it lies here."""

    path: str
    kind: str
    here: Path
    name: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Release:
    """What a bundle is a release of, and for which machines."""

    version: str
    protocol: int
    commit: str
    made_s: int
    python: str
    arch: str
    systems: tuple[str, ...]

    @property
    def file_name(self) -> str:
        return f"cloister-{self.version}-{self.python}-{self.arch}.bundle"


def pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(bundle.PIECE_BYTES):
            yield piece


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    for piece in pieces(path):
        digest.update(piece)
    return digest.hexdigest()


def manifest_of(release: Release, sources: Sequence[Source], key: SigningKey) -> bytes:
    files = [
        {
            "path": source.path, "kind": source.kind, "name": source.name, "digest": source.digest,
            "size": source.here.stat().st_size, "sha256": sha256_of(source.here),
        }
        for source in sorted(sources, key=lambda source: source.path)
    ]  # fmt: skip
    said: dict[str, Any] = asdict(release) | {
        "format": bundle.FORMAT, "kind": bundle.KIND, "key": key.public.fingerprint, "files": files,
    }  # fmt: skip
    return json.dumps(said, sort_keys=True, indent=1).encode("ascii") + b"\n"


def pack(folder: Path, release: Release, sources: Sequence[Source], key: SigningKey) -> Path:
    """Write the bundle into `folder`, whole or not at all, and open it again; returns its path."""
    manifest = manifest_of(release, sources, key)
    bundle.read_manifest(manifest)
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / release.file_name
    partial = out.with_name(f".{out.name}.partial")
    try:
        with partial.open("wb") as file:
            for name, content in ((bundle.MANIFEST, manifest), (bundle.SIGNATURE, key.sign(manifest))):
                file.write(bundle.header(name, len(content), release.made_s))
                file.write(content + bytes(bundle.padding(len(content))))
            for source in sorted(sources, key=lambda source: source.path):
                size = source.here.stat().st_size
                file.write(bundle.header(source.path, size, release.made_s))
                for piece in pieces(source.here):
                    file.write(piece)
                file.write(bytes(bundle.padding(size)))
            file.write(bytes(2 * bundle.BLOCK))
            file.flush()
            os.fsync(file.fileno())
        bundle.Bundle.verify(partial, [key.public], machine=None)
        partial.rename(out)
    finally:
        partial.unlink(missing_ok=True)
    return out
