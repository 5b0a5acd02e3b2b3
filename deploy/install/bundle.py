"""Open and verify a bundle: the one file a site without a network installs from. Standard library only.

A bundle is a plain tar file, `manifest.json`, `manifest.json.sig`, then what the manifest names, in its order. In
order, and nothing is written before all of it has passed:

1. The manifest is at the beginning, and no larger than a manifest is.
2. Its signature is by a release key that this machine trusts (OpenSSH public keys, one a line; none trusts nobody).
3. It is of a format we know, and every line of it keeps the grammar: no path leads out of the folder.
4. It is for this machine: architecture, Python, system.
5. The file is exactly as long as the manifest says, and every byte of it follows from the manifest: each tar header is
   made anew and compared, each file is hashed, the padding is zeros. A link, a second file of a name, one too many,
   one byte more or less has no place in that. Nothing is decompressed, so there is nothing to blow up.

`Refused` says which exit code: 2 not for this machine, 4 not what was signed by a trusted key, 5 not now.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .release_keys import SIGNATURE_BYTES, Refused, ReleaseKey, signed

FORMAT = 1
KIND = "cloister.bundle"
MANIFEST, SIGNATURE = "manifest.json", "manifest.json.sig"
KINDS = ("wheel", "deb", "image", "sbom", "doc", "script")
# 4,000 files of 300 bytes each; a bundle has some two hundred
MAX_MANIFEST_BYTES = 2 << 20
MAX_FILES = 4000
# what a header has room for; a path over 100 characters stands in a record of GNU's before it
MAX_PATH, MAX_OCTAL = 200, 8**11 - 1
BLOCK = 512
PIECE_BYTES = 1 << 20

_FIELDS = {"format", "kind", "version", "protocol", "commit", "made_s", "python", "arch", "systems", "key", "files"}
_FILE_FIELDS = {"path", "kind", "name", "digest", "size", "sha256"}
# two folders below each other at most; no part begins with a dot, so none is `..`
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+~%-]{0,150}(/[A-Za-z0-9_][A-Za-z0-9._+~%-]{0,150}){0,2}")
_VERSION = re.compile(r"[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,6}")
_WORD = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
_HEX = re.compile(r"[0-9a-f]{40,64}")
_NAME = re.compile(r"[A-Za-z0-9._+-]{0,100}")
_DIGEST = re.compile(r"(sha256:[0-9a-f]{64})?")
_SHA256 = re.compile(r"[0-9a-f]{64}")


# ------------------------------------------------------------------ what it says it is


@dataclass(frozen=True)
class File:
    """One file of a bundle. `name` is the package's, project's or image's, `digest` an image's id; else empty."""

    path: str
    kind: str
    name: str
    digest: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What was signed: a release, the machines it is for, the key, and every file."""

    version: str
    protocol: int
    commit: str
    made_s: int
    python: str
    arch: str
    systems: tuple[str, ...]
    key: str
    files: tuple[File, ...]


@dataclass(frozen=True)
class Machine:
    """A machine to install on: `x86_64`, `cp311`, `debian-12`."""

    arch: str
    python: str
    system: str


def this_machine(python: str | None = None, os_release: Path = Path("/etc/os-release")) -> Machine:
    """This one. `python` is the tag of the interpreter that will run Cloister, where that is not the present one."""
    tag = python or f"cp{sys.version_info.major}{sys.version_info.minor}"
    try:
        lines = os_release.read_text("utf-8").splitlines()
    except OSError:
        lines = []
    said = {name: value.strip("\"'") for name, _, value in (line.partition("=") for line in lines)}
    return Machine(platform.machine(), tag, f"{said.get('ID', 'unknown')}-{said.get('VERSION_ID', 'unknown')}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name twice")
    return dict(pairs)


def _matches(value: Any, pattern: re.Pattern[str]) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _whole(value: Any, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def read_manifest(raw: bytes) -> Manifest:
    """The manifest in these bytes, whose signature was verified. Raises `Refused`."""
    try:
        plain = json.loads(raw, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        plain = None
    if not isinstance(plain, dict) or plain.get("kind") != KIND:
        raise _broken("its manifest is not that of a bundle")
    if plain.get("format") != FORMAT:
        hint = "install it with the install.sh of its own release"
        raise Refused(f"this bundle is of a format we do not know (this installer reads format {FORMAT})", hint, 2)
    if set(plain) != _FIELDS:
        raise _broken("its manifest has a field too many or too few")
    systems, files = plain["systems"], plain["files"]
    right = (
        _matches(plain["version"], _VERSION) and _matches(plain["commit"], _HEX)
        and _whole(plain["protocol"], 1 << 16) and _whole(plain["made_s"], MAX_OCTAL)
        and _matches(plain["python"], _WORD) and _matches(plain["arch"], _WORD) and isinstance(plain["key"], str)
        and isinstance(systems, list) and 0 < len(systems) <= 8 and all(_matches(each, _WORD) for each in systems)
        and isinstance(files, list) and len(files) <= MAX_FILES
    )  # fmt: skip
    if not right:
        raise _broken("a field of its manifest is not of its kind")
    plain["systems"], plain["files"] = tuple(systems), _read_files(files)
    return Manifest(**{name: value for name, value in plain.items() if name not in ("format", "kind")})


def _read_files(listed: list[Any]) -> tuple[File, ...]:
    """Sorted, each path once, none of them one of the bundle's own two, none also another's folder."""
    files = []
    for each in listed:
        if not isinstance(each, dict) or set(each) != _FILE_FIELDS:
            raise _broken("a file of its manifest has a field too many or too few")
        if not _matches(each["path"], _PATH) or len(each["path"]) > MAX_PATH:
            raise _broken(f"its manifest names a path that is none of a bundle: {ascii(each['path'])[:120]}")
        right = (
            each["kind"] in KINDS and _whole(each["size"], MAX_OCTAL) and _matches(each["sha256"], _SHA256)
            and _matches(each["name"], _NAME) and _matches(each["digest"], _DIGEST)
        )  # fmt: skip
        if not right:
            raise _broken("a file of its manifest has a kind, name, size or hash that is none")
        files.append(File(**each))
    paths = [file.path for file in files]
    folders = {str(parent) for path in paths for parent in Path(path).parents}
    if paths != sorted(set(paths)) or {MANIFEST, SIGNATURE, *folders} & set(paths):
        raise _broken("its manifest names a path twice, or out of order")
    return tuple(files)


def _broken(what: str) -> Refused:
    return Refused(f"this is not the bundle that was signed: {what}", "fetch it again, and compare its SHA-256")


# ------------------------------------------------------------------ the file


def header(path: str, size: int, made_s: int) -> bytes:
    """The tar header (of GNU tar) that this file has in a bundle: the one there is, so that it can be compared."""
    entry = tarfile.TarInfo(path)
    entry.size, entry.mtime = size, made_s
    entry.mode = 0o755 if path.endswith(".sh") else 0o644
    return entry.tobuf(tarfile.GNU_FORMAT)


def padding(size: int) -> int:
    return -size % BLOCK


def _length(manifest: Manifest) -> int:
    """What the files of a bundle take in it, with the two empty blocks at its end."""
    files = ((len(header(file.path, file.size, manifest.made_s)), file.size) for file in manifest.files)
    return sum(head + size + padding(size) for head, size in files) + 2 * BLOCK


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise _broken("it ends in the middle")
    return data


def _member(file: BinaryIO, expected: str, most: int) -> tuple[bytes, int]:
    """The content of the member that stands here, and the time in its header."""
    raw = _exactly(file, BLOCK)
    try:
        entry = tarfile.TarInfo.frombuf(raw, "utf-8", "strict")
    except (tarfile.HeaderError, ValueError):
        raise Refused("this is no bundle", "name a file that deploy/bundle.sh made") from None
    if entry.name != expected or raw[156:157] != tarfile.REGTYPE or not 0 < entry.size <= most:
        raise Refused(f"this is no bundle: {expected} is not where it has to be", "name a file of a release")
    content = _exactly(file, entry.size)
    if any(_exactly(file, padding(entry.size))):
        raise _broken("there is something between its files")
    return content, int(entry.mtime)


def _why_not(raw: bytes, file: File) -> Refused:
    """The words for a header that is not the one that `file` has."""
    try:
        found = tarfile.TarInfo.frombuf(raw, "utf-8", "replace")
    except tarfile.HeaderError:
        return _broken(f"{file.path} is missing or damaged")
    if found.name == file.path:
        return _broken(f"{file.path} is " + ("another size or mode" if found.isreg() else "a link or no file"))
    return _broken(f"{file.path} was expected, and something else stands there")


@dataclass(frozen=True)
class Bundle:
    """A verified bundle."""

    path: Path
    manifest: Manifest
    signer: ReleaseKey
    head: bytes

    @property
    def signed_by(self) -> str:
        return f"{self.signer.name} ({self.signer.fingerprint})"

    def of(self, kind: str) -> tuple[File, ...]:
        return tuple(file for file in self.manifest.files if file.kind == kind)

    @classmethod
    def verify(cls, path: Path, keys: Sequence[ReleaseKey], *, machine: Machine | None) -> Bundle:
        """Read a bundle whole and write nothing. `machine` None: it is not to be installed here. Raises `Refused`."""
        with _opened(path) as file:
            raw, made_s = _member(file, MANIFEST, MAX_MANIFEST_BYTES)  # (1)
            signature, _ = _member(file, SIGNATURE, SIGNATURE_BYTES)
            signer = _signer(keys, raw, signature)  # (2)
            manifest = read_manifest(raw)  # (3)
            if machine is not None:
                _for_machine(manifest, machine)  # (4)
            head = b"".join(
                header(name, len(content), manifest.made_s) + content + bytes(padding(len(content)))
                for name, content in ((MANIFEST, raw), (SIGNATURE, signature))
            )
            if made_s != manifest.made_s or manifest.key != signer.fingerprint:
                raise _broken("its beginning does not fit its manifest")
            bundle = cls(path, manifest, signer, head)
            bundle._read(file, lambda _: None, lambda _: None)  # (5)
        return bundle

    def unpack(self, into: Path) -> None:
        """Write every file below `into`, which is not there yet; a failure leaves nothing behind. Raises `Refused`."""
        partial = into.with_name(into.name + ".partial")
        if into.exists() or into.is_symlink():
            raise Refused(f"{into} is there already", "name a folder that is not there yet", 2)
        try:
            partial.mkdir(mode=0o755)
        except OSError as error:
            raise Refused(f"{partial} cannot be made ({error.strerror})", "remove it, or name another", 2) from None
        try:
            self._write(partial)
            partial.rename(into)
        except OSError as error:
            raise Refused(f"the bundle cannot be unpacked ({error.strerror})", "is the disk full?", 5) from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _write(self, folder: Path) -> None:
        needed = sum(file.size for file in self.manifest.files)
        if shutil.disk_usage(folder).free < needed + (64 << 20):
            raise Refused(f"there is no room to unpack {needed >> 20} MB", "make room, and try again", 5)
        out: BinaryIO | None = None

        def begin(file: File) -> None:
            nonlocal out
            if out is not None:
                out.close()
            place = folder / file.path
            place.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            out = os.fdopen(descriptor, "wb")
            os.fchmod(descriptor, 0o755 if file.path.endswith(".sh") else 0o644)

        def more(piece: bytes) -> None:
            assert out is not None
            out.write(piece)

        try:
            with _opened(self.path) as source:
                self._read(source, begin, more)
        finally:
            if out is not None:
                out.close()

    def _read(self, source: BinaryIO, begin: Callable[[File], None], more: Callable[[bytes], None]) -> None:
        """Read all of it against the manifest; `begin` and `more` are given each file."""
        if os.fstat(source.fileno()).st_size != len(self.head) + _length(self.manifest):
            raise _broken("it is shorter or longer than that")
        source.seek(0)
        if _exactly(source, len(self.head)) != self.head:
            raise _broken("its beginning was changed")
        for file in self.manifest.files:
            expected = header(file.path, file.size, self.manifest.made_s)
            found = _exactly(source, len(expected))
            if found != expected:
                raise _why_not(found[-BLOCK:], file)
            begin(file)
            digest, left = hashlib.sha256(), file.size
            while left:
                piece = _exactly(source, min(left, PIECE_BYTES))
                digest.update(piece)
                more(piece)
                left -= len(piece)
            if digest.hexdigest() != file.sha256:
                raise _broken(f"{file.path} was changed")
            if any(_exactly(source, padding(file.size))):
                raise _broken(f"there is something behind {file.path}")
        if any(source.read()):
            raise _broken("there is something at its end")


def _opened(path: Path) -> BinaryIO:
    try:
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    except OSError as error:
        raise Refused(f"{path} cannot be read ({error.strerror})", "name the bundle's file", 2) from None


def _signer(keys: Sequence[ReleaseKey], raw: bytes, signature: bytes) -> ReleaseKey:
    for key in keys:
        if signed(key, raw, signature):
            return key
    hint = "name the publisher's key with --release-key FILE, after comparing its fingerprint"
    if not keys:
        raise Refused("no release key is trusted here, so no bundle is", hint)
    known = ", ".join(f"{key.name} ({key.fingerprint})" for key in keys)
    raise Refused(f"this bundle is not signed by a release key that is trusted here: {known}", hint)


def _for_machine(manifest: Manifest, machine: Machine) -> None:
    where = f"this machine is {machine.system}, {machine.arch}, {machine.python}"
    made = f"{', '.join(manifest.systems)}, {manifest.arch}, {manifest.python}"
    hint = f"fetch the bundle cloister-{manifest.version}-{machine.python}-{machine.arch}"
    for what, right in (
        ("architecture", manifest.arch == machine.arch),
        ("version of Python", manifest.python == machine.python),
        ("system", machine.system in manifest.systems),
    ):
        if not right:
            raise Refused(f"this bundle is for another {what}: it is for {made}; {where}", hint, 2)
