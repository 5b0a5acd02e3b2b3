"""Small bundles, made as a release makes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deploy.install import bundle
from deploy.release.keys import SigningKey, public_of
from deploy.release.pack import Release, Source, manifest_of, pack

RELEASE = Release(
    version="0.2.0", protocol=2, commit="5" * 40, made_s=1_760_000_000, python="cp311", arch="x86_64",
    systems=("debian-12",),
)  # fmt: skip
# some wheels are called that long
LONG = f"wheels/charset_normalizer-3.5.2-cp311-cp311-{'.'.join(['manylinux_2_17_x86_64'] * 4)}.whl"
HERE = bundle.Machine("x86_64", "cp311", "debian-12")


def new_key(name: str = "A publisher") -> SigningKey:
    private = Ed25519PrivateKey.generate()
    return SigningKey(private, public_of(private, name), Path("/nowhere"))


def sources(folder: Path) -> list[Source]:
    """Five files, one of them without a byte, one of a whole block."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for path, kind, content in (
        ("wheels/cloister-0.2.0-py3-none-any.whl", "wheel", b"a wheel" * 40), (LONG, "wheel", b"b"),
        ("debs/iptables_1_amd64.deb", "deb", b""),
        ("images/cloister-sentinel.tar", "image", b"i" * 512), ("install.sh", "script", b"#!/bin/bash\nexit 0\n"),
    ):  # fmt: skip
        here = folder / path.replace("/", "_")
        here.write_bytes(content)
        found.append(Source(path, kind, here, "cloister" if kind == "wheel" else ""))
    return found


def make(folder: Path, key: SigningKey, release: Release = RELEASE) -> Path:
    return pack(folder, release, sources(folder / "sources"), key)


def forge(
    folder: Path, key: SigningKey, change: Callable[[dict[str, Any]], None] = lambda _: None, *,
    members: Callable[[list[tuple[bytes, bytes]]], None] = lambda _: None, raw: bytes | None = None,
) -> Path:  # fmt: skip
    """What somebody who holds a key, or a hex editor, makes: `change` the manifest before it is signed, then `members`,
    the (header, content) of every file as it will stand."""
    manifest = json.loads(manifest_of(RELEASE, sources(folder / "sources"), key))
    written = [
        (bundle.header(source.path, source.here.stat().st_size, RELEASE.made_s), source.here.read_bytes())
        for source in sorted(sources(folder / "sources"), key=lambda source: source.path)
    ]
    change(manifest)
    members(written)
    text = raw if raw is not None else json.dumps(manifest, sort_keys=True).encode("ascii")
    head = [(bundle.MANIFEST, text), (bundle.SIGNATURE, key.sign(text))]
    written[:0] = [(bundle.header(name, len(content), RELEASE.made_s), content) for name, content in head]
    out = folder / "forged.bundle"
    blocks = [header + content + bytes(bundle.padding(len(content))) for header, content in written]
    out.write_bytes(b"".join(blocks) + bytes(2 * bundle.BLOCK))
    return out
