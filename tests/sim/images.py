"""Tiny container images as archives, well made and otherwise: `docker save` files and OCI layouts."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow

STATUS = b"""Package: libc6
Status: install ok installed
Version: 2.36-9

Package: gone
Status: deinstall ok config-files
Version: 1

"""
METADATA = b"Metadata-Version: 2.1\nName: numpy\nVersion: 2.1.0\n\nName: not-a-header\n"
DIST = "usr/lib/python3/dist-packages/numpy-2.1.0.dist-info/METADATA"
BASE = {"var/lib/dpkg/status": STATUS, DIST: METADATA, "bin/true": b"\x7fELF"}
SPDX = json.dumps({"spdxVersion": "SPDX-2.3", "packages": [{}, {}, {}]}).encode()
CYCLONE = json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.5", "components": [{}]}).encode()


def sha(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "") -> tuple[Any, bytes]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.size = kind, target, len(content)
    return entry, content


def tar(members: Iterable[tuple[Any, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for entry, content in members:
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def layer(files: Mapping[str, bytes]) -> bytes:
    """A layer's tar file."""
    return tar(member(name, content) for name, content in files.items())


def zstd(raw: bytes) -> bytes:
    return bytes(pyarrow.compress(raw, codec="zstd", asbytes=True))


PACK = {"": lambda raw: raw, "gzip": lambda raw: gzip.compress(raw, mtime=0), "zstd": zstd}


@dataclass
class Tiny:
    """An image: its layers' tar files, its configuration's `config` and other members, how layers are packed."""

    layers: list[bytes] = field(default_factory=lambda: [layer(BASE)])
    inner: dict[str, Any] = field(
        default_factory=lambda: {"Entrypoint": ["/bin/true"], "Env": ["PATH=/bin", "TOKEN=x"]}
    )
    outer: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=lambda: ["registry.example:5000/team/tiny:1"])
    packing: str = ""

    @property
    def config(self) -> bytes:
        plain = {
            "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z", "config": self.inner,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha(each)}" for each in self.layers]},
            "history": [{"created_by": "COPY / /"} for _ in self.layers],
        }  # fmt: skip
        return json.dumps(plain | self.outer).encode()

    @property
    def id(self) -> str:
        return f"sha256:{sha(self.config)}"

    # ---- docker save

    def saved(self) -> dict[str, bytes]:
        """The members of a `docker save` archive."""
        named = {f"{sha(each)}/layer.tar": each for each in self.layers}
        return {**named, f"{sha(self.config)}.json": self.config, "manifest.json": json.dumps([self.entry()]).encode()}

    def entry(self) -> dict[str, Any]:
        layers = [f"{sha(each)}/layer.tar" for each in self.layers]
        return {"Config": f"{sha(self.config)}.json", "RepoTags": self.tags, "Layers": layers}

    # ---- OCI layout

    def blobs(self) -> list[bytes]:
        return [PACK[self.packing](each) for each in self.layers]

    @property
    def manifest(self) -> bytes:
        plain = {
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor(self.config), "layers": [descriptor(each) for each in self.blobs()],
        }  # fmt: skip
        return json.dumps(plain).encode()

    def laid_out(self, *, beside: Iterable[bytes] = (), entries: Iterable[dict[str, Any]] = ()) -> dict[str, bytes]:
        """The members of an OCI layout; `beside` are more blobs, `entries` more descriptors of the index."""
        own = descriptor(self.manifest) | {"annotations": {"org.opencontainers.image.ref.name": "tiny:1"}}
        index = {"schemaVersion": 2, "manifests": [own, *entries]}
        raw = [self.config, self.manifest, *self.blobs(), *beside]
        return {
            "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
            "index.json": json.dumps(index).encode(),
            **{f"blobs/sha256/{sha(each)}": each for each in raw},
        }


def descriptor(raw: bytes) -> dict[str, Any]:
    return {"digest": f"sha256:{sha(raw)}", "size": len(raw)}


def write(path: Path, members: Mapping[str, bytes]) -> Path:
    """The archive as a tar file."""
    path.write_bytes(tar(member(name, content) for name, content in members.items()))
    return path


def unfold(folder: Path, members: Mapping[str, bytes]) -> Path:
    """The archive as a folder."""
    for name, content in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
