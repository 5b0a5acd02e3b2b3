"""Is any of these strings in any of these files, in whatever dress? The judge of "nothing planted survives".

A token is looked for as UTF-8, Latin-1, ISO 2022 JP, UTF-16 (both orders), JSON's escapes, base64 (three alignments,
both alphabets) and hexadecimal (both cases), in the bytes of every file and in what gzip, zlib, zip and tar members,
deflated DICOM datasets, Parquet tables and SQLite databases unpack to. GNU grep does the byte work: `grep -F` finds
thousands of fixed strings in one pass.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import os
import sqlite3
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# What an archive may unpack to here before the search gives up loudly: a judge must not skip in silence.
MAX_UNPACKED_BYTES = 1 << 30
MAX_NESTING = 4
MIN_TOKEN = 6


@dataclass(frozen=True)
class Hit:
    """A token found in a file (`name` tells the member inside it, or the file's own name when `name` is "path")."""

    token: str
    path: Path
    name: str = ""


def search(roots: Iterable[Path], tokens: Iterable[str]) -> list[Hit]:
    """Every (token, file) pair under `roots` (files or folders). Raises `ValueError` for a token too short to judge."""
    wanted = dict.fromkeys(tokens)
    if short := [token for token in wanted if len(token) < MIN_TOKEN]:
        raise ValueError(f"{len(short)} tokens are shorter than {MIN_TOKEN} characters")
    dresses = {dress: token for token in wanted for dress in _dresses(token)}
    with tempfile.TemporaryDirectory(prefix="cloister-search-") as scratch:
        patterns = Path(scratch) / "patterns"
        patterns.write_bytes(b"\n".join(dresses) + b"\n")
        hits: set[Hit] = set()
        members: list[tuple[Path, str]] = []
        unpacked = Path(scratch) / "unpacked"
        unpacked.mkdir()
        listed = list(roots)
        for root in listed:
            hits.update(_in_names(root, wanted))
            for path in _files(root):
                for name, content in _unpacked(path):
                    (unpacked / str(len(members))).write_bytes(content)
                    members.append((path, name))
        # two runs in all: reading that many patterns takes grep longer than reading most trees
        for path, found in _grep(patterns, listed):
            hits.add(Hit(dresses[found], path))
        for path, found in _grep(patterns, [unpacked] if members else []):
            hits.add(Hit(dresses[found], *members[int(path.name)]))
    return sorted(hits, key=lambda hit: (str(hit.path), hit.token, hit.name))


def _dresses(token: str) -> Iterator[bytes]:
    plain = [token.encode()]
    if not token.isascii():
        plain += [token.encode("latin-1", "ignore"), json.dumps(token)[1:-1].encode()]
        plain.append(token.encode("iso2022_jp", "ignore").removeprefix(b"\x1b$B").removesuffix(b"\x1b(B"))
        plain = [form for form in plain if len(form) >= MIN_TOKEN]
    wide = [token.encode("utf-16-le"), token.encode("utf-16-be")]
    # a line end inside a pattern would split it; no token of ours holds one in any of these forms
    yield from (form for form in plain + wide if b"\n" not in form)
    for form in plain + wide:
        yield binascii.hexlify(form)
        yield binascii.hexlify(form).upper()
        for offset in range(3):
            coded = base64.b64encode(b"\0" * offset + form)
            # only characters that no neighbouring byte can change
            first = -(-offset * 8 // 6)
            last = (offset + len(form)) * 8 // 6
            yield coded[first:last]
            yield coded[first:last].translate(bytes.maketrans(b"+/", b"-_"))


def _files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
    for folder, _folders, names in os.walk(root):
        for name in names:
            path = Path(folder) / name
            if path.is_file() and not path.is_symlink():
                yield path


def _in_names(root: Path, tokens: Iterable[str]) -> Iterator[Hit]:
    names = list(root.rglob("*")) if root.is_dir() else [root]
    wanted = list(tokens)
    for path in names:
        name = str(path.relative_to(root))
        for token in wanted:
            if token in name:
                yield Hit(token, path, "path")


def _grep(patterns: Path, roots: list[Path]) -> Iterator[tuple[Path, bytes]]:
    """(file, matched bytes) of GNU grep over files and trees; -Z ends the file name with NUL."""
    if not roots:
        return
    command = ["grep", "-raFoZH", "--devices=skip", "-f", str(patterns), "--", *map(str, roots)]
    done = subprocess.run(command, capture_output=True, check=False, env=os.environ | {"LC_ALL": "C"})
    # a file of a running process may go while grep walks; whatever else it could not read, nobody has judged
    left = [line for line in done.stderr.splitlines() if not line.endswith(b"No such file or directory")]
    if done.returncode > 1 and (left or not all(root.exists() for root in roots)):
        raise RuntimeError(f"grep could not read everything: {left[:3]!r}")
    for line in done.stdout.split(b"\n"):
        name, _, found = line.partition(b"\0")
        if found:
            yield Path(os.fsdecode(name)), found


def _unpacked(path: Path) -> Iterator[tuple[str, bytes]]:
    """(member, bytes) of what is packed inside a file; a file that only looks packed yields nothing."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        return  # gone since it was listed
    if head.startswith(b"SQLite format 3\0"):
        yield "sqlite", _sqlite_text(path)
    elif head.startswith(b"PAR1"):
        yield "parquet", _parquet_text(path)
    elif _is_packed(head):
        yield from _members("", path.read_bytes(), 0)


def _is_packed(head: bytes) -> bool:
    return (
        head.startswith((b"\x1f\x8b", b"PK\x03\x04"))
        or head[257:262] == b"ustar"
        or (head[:1] == b"\x78" and len(head) > 1 and (head[0] << 8 | head[1]) % 31 == 0)
        or (head[128:132] == b"DICM" and b"1.2.840.10008.1.2.1.99" in head)
    )


def _members(prefix: str, content: bytes, depth: int) -> Iterator[tuple[str, bytes]]:
    if depth > MAX_NESTING or not _is_packed(content[:512]):
        return
    for name, inner in _open_packed(content):
        if len(inner) > MAX_UNPACKED_BYTES:
            raise RuntimeError("a packed file is too large to judge")
        yield f"{prefix}{name}", inner
        yield from _members(f"{prefix}{name}/", inner, depth + 1)


def _open_packed(content: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        if content.startswith(b"\x1f\x8b"):
            yield "gzip", _inflate(content, 16 + zlib.MAX_WBITS)
        elif content.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                yield "names", "\n".join(archive.namelist()).encode()
                for name in archive.namelist():
                    yield name, archive.read(name)
        elif content[257:262] == b"ustar":
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                yield "names", "\n".join(archive.getnames()).encode()
                for member in archive:
                    inner = archive.extractfile(member) if member.isfile() else None
                    yield member.name, inner.read() if inner else b""
        elif content[128:132] == b"DICM":
            length = int.from_bytes(content[140:144], "little")
            yield "dataset", _inflate(content[144 + length :], -zlib.MAX_WBITS)
        else:
            yield "zlib", _inflate(content, zlib.MAX_WBITS)
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError):
        return


def _inflate(content: bytes, window: int) -> bytes:
    """What a deflate stream unpacks to, as far as it does: a cut or dirty stream still holds what came before."""
    found = []
    while content:
        machine = zlib.decompressobj(window)
        try:
            for at in range(0, len(content), 1 << 16):
                found.append(machine.decompress(content[at : at + (1 << 16)]))
                if sum(map(len, found)) > MAX_UNPACKED_BYTES:
                    raise RuntimeError("a packed file is too large to judge")
        except zlib.error:
            break
        content = machine.unused_data if machine.eof and window > zlib.MAX_WBITS else b""
    return b"".join(found)


def _sqlite_text(path: Path) -> bytes:
    """All values of a database as text: a value may be torn over several pages of the file."""
    with tempfile.TemporaryDirectory(prefix="cloister-search-") as scratch:
        copy = Path(scratch) / "copy.db"
        for suffix in ("", "-wal"):
            if (source := Path(f"{path}{suffix}")).exists():
                Path(f"{copy}{suffix}").write_bytes(source.read_bytes())
        database = sqlite3.connect(copy)
        try:
            return "\n".join(database.iterdump()).encode("utf-8", "replace")
        except sqlite3.DatabaseError:
            return b""
        finally:
            database.close()


def _parquet_text(path: Path) -> bytes:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    return "\n".join(f"{name} {value}" for name in table.column_names for value in table[name].to_pylist()).encode()
