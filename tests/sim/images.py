"""Tiny container images, well made and otherwise: `docker save` files, OCI layouts, and a registry that serves one."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
LAYER = "application/vnd.oci.image.layer.v1.tar"
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
        kind = f"+{self.packing}" if self.packing else ""
        plain = {
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor(self.config) | {"mediaType": "application/vnd.oci.image.config.v1+json"},
            "layers": [descriptor(each) | {"mediaType": f"{LAYER}{kind}"} for each in self.blobs()],
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


@contextmanager
def registry(tiny: Tiny) -> Iterator[str]:
    """A registry on loopback that holds one image; its `host:port` (OCI distribution specification, pulling)."""
    held = {f"sha256:{sha(raw)}": raw for raw in (tiny.manifest, tiny.config, *tiny.blobs())}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            digest = self.path.rpartition("/")[2]
            raw = b"{}" if self.path == "/v2/" else held.get(digest)
            self.send_response(404 if raw is None else 200)
            kind = json.loads(tiny.manifest)["mediaType"] if "/manifests/" in self.path else "application/octet-stream"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(raw or b"")))
            self.send_header("Docker-Content-Digest", digest)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(raw or b"")

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
