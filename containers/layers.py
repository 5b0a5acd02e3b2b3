"""What one layer of an image brings and takes away: packages and bills of materials, read while it streams past.

Nothing is unpacked to the disk. A file of a package manager's is read up to a bound, a whiteout (OCI image
specification, layer.md) hides what lower layers brought, and everything else is skipped.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from containers.tarballs import Readable, Tar
from mediator.canonical import loads_foreign
from mediator.errors import Malformed
from mediator.images import MAX_PACKAGES, Package, Sbom, printable

# dpkg's status of a full desktop has 5 MB, and parsed JSON takes some twenty times its size in memory
MAX_FILE_BYTES = 16 << 20
# the name and version of a Python package stand before its description
_HEADERS_BYTES = 64 << 10
MAX_ENTRIES = 2_000_000
# names that must be remembered: links and whiteouts
_MAX_REMEMBERED = 64 << 20
_MAX_DEPTH = 256
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"


@dataclass(frozen=True)
class Found:
    """What one file says. `unread` names a package manager's file that could not be read."""

    packages: tuple[Package, ...] = ()
    sbom: Sbom | None = None
    unread: str = ""


@dataclass
class Content:
    """One layer: what it brings by path, which paths of lower layers it hides, which folders it empties first."""

    brings: dict[str, Found] = field(default_factory=dict)
    hides: set[str] = field(default_factory=set)
    empties: set[str] = field(default_factory=set)


def read_layer(stream: Readable, *, max_entries: int = MAX_ENTRIES) -> Content:
    """The content of one layer's tar stream. Raises `Malformed` for a name that leaves its root, or a damaged tar."""
    tar, content, remembered, packages = Tar(stream, max_entries=max_entries), Content(), 0, 0
    for entry in tar:
        path = inside(entry.name)
        folder, _, name = path.rpartition("/")
        if name == OPAQUE:
            content.empties.add(folder)
        elif name.startswith(WHITEOUT):
            content.hides.add(f"{folder}/{name[len(WHITEOUT) :]}".lstrip("/"))
        elif reader := _reader(path):
            if entry.kind == "file":
                content.brings[path] = found = reader(tar, path, entry.size_bytes)
                packages += 1 + len(found.packages)
            elif entry.kind != "folder":  # a link to what stands somewhere else
                content.brings[path] = Found(unread=printable(path))
        elif entry.kind not in ("file", "folder"):
            content.hides.add(path)  # in the place of a folder, a link hides all that was in it
        else:
            continue
        remembered += len(path)
        if packages > 4 * MAX_PACKAGES or remembered > _MAX_REMEMBERED:
            raise Malformed("a layer with more packages or links than anybody could read")
    return content


def combine(layers: Iterable[Content]) -> Mapping[str, Found]:
    """What is visible when the layers lie on each other, the first at the bottom."""
    visible: dict[str, Found] = {}
    for layer in layers:
        if layer.hides or layer.empties:
            visible = {path: found for path, found in visible.items() if not _hidden(path, layer)}
        visible |= layer.brings
    return visible


def inside(name: str) -> str:
    """A member's name as a path below the root. Raises `Malformed` for one that would leave it."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or len(parts) > _MAX_DEPTH or "\0" in name:
        raise Malformed("a layer holds a name that leaves its root")
    return "/".join(parts)


def _hidden(path: str, layer: Content) -> bool:
    at = path
    while True:
        if at in layer.hides or (at != path and at in layer.empties):
            return True
        if not at:
            return False
        at = at.rpartition("/")[0]


# --- the files that name packages ---------------------------------------------------------------------------

Reader = Callable[[Readable, str, int], Found]


def _reader(path: str) -> Reader | None:
    """Who reads the file of this path; None for nearly all."""
    # most paths are done with here
    if not _LIKELY.search(path):
        return None
    return next((reader for pattern, reader in _READERS if pattern.fullmatch(path)), None)


def _dpkg(stream: Readable, path: str, size: int) -> Found:
    text = _whole(stream, size)
    if text is None:
        return Found(unread=printable(path))
    return Found(tuple(_named(_fields(text, ": "), "deb", "Package", "Version")))


def _apk(stream: Readable, path: str, size: int) -> Found:
    text = _whole(stream, size)
    if text is None:
        return Found(unread=printable(path))
    return Found(tuple(_named(_fields(text, ":"), "apk", "P", "V")))


def _python(stream: Readable, path: str, size: int) -> Found:
    text = _prefix(stream, _HEADERS_BYTES).decode("utf-8", "replace").split("\n\n", 1)[0]
    found = tuple(_named(_fields(text, ": "), "python", "Name", "Version"))
    return Found(found[:1]) if found else Found(unread=printable(path))


def _conda(stream: Readable, path: str, size: int) -> Found:
    plain = _json(stream, size)
    name, version = (plain.get("name"), plain.get("version")) if isinstance(plain, dict) else (None, None)
    if not (isinstance(name, str) and isinstance(version, str)):
        return Found(unread=printable(path))
    return Found((Package("conda", printable(name, 200), printable(version, 200)),))


def _rpm(stream: Readable, path: str, size: int) -> Found:
    return Found(unread=printable(path))


def _bill(stream: Readable, path: str, size: int) -> Found:
    raw = _prefix(stream, MAX_FILE_BYTES + 1)
    found = read_sbom(raw, f"/{path}")
    return Found(unread=printable(path)) if found is None else Found(sbom=found)


_LIKELY = re.compile(r"dpkg|apk|-info/|conda-meta|rpm|sbom|spdx")
_READERS: Sequence[tuple[re.Pattern[str], Reader]] = [
    (re.compile(r"var/lib/dpkg/(status|status\.d/[^/]+(?<!\.md5sums))"), _dpkg),
    (re.compile(r"(usr/)?lib/apk/db/installed"), _apk),
    (re.compile(r"(.+/)?([^/]+\.dist-info/METADATA|[^/]+\.egg-info/PKG-INFO)"), _python),
    (re.compile(r"(.+/)?conda-meta/[^/]+\.json"), _conda),
    (re.compile(r"(var/lib|usr/lib/sysimage)/rpm/(rpmdb\.sqlite|Packages(\.db)?)"), _rpm),
    (re.compile(r"(usr/(local/)?share/sbom/.+\.json|opt/bitnami/.+\.spdx.*\.json)"), _bill),
]  # fmt: skip


def _fields(text: str, colon: str) -> Iterator[dict[str, str]]:
    """Paragraphs of `Key: value` lines (deb-control(5), apk's installed data base); the first of a key counts."""
    for paragraph in re.split(r"\n\n+", text):
        found: dict[str, str] = {}
        for line in paragraph.split("\n"):
            key, there, value = line.partition(colon)
            if there and key.isalnum():
                found.setdefault(key, value.strip())
        yield found


def _named(paragraphs: Iterable[dict[str, str]], kind: Any, name: str, version: str) -> Iterator[Package]:
    for each in paragraphs:
        # dpkg also remembers what was removed, and says so in the last word of its status
        if name in each and version in each and each.get("Status", "installed").split(" ")[-1] == "installed":
            yield Package(kind, printable(each[name], 200), printable(each[version], 200))


# --- bills of materials -------------------------------------------------------------------------------------


def read_sbom(raw: bytes, where: str) -> Sbom | None:
    """A summary of an SPDX or CycloneDX document in JSON, bare or in an in-toto statement; None for anything else."""
    if len(raw) > MAX_FILE_BYTES:
        return None
    try:
        plain = loads_foreign(raw)
    except Malformed:
        return None
    if isinstance(plain, dict) and isinstance(plain.get("predicate"), dict):
        plain = plain["predicate"]
    if not isinstance(plain, dict):
        return None
    sha256, place = hashlib.sha256(raw).hexdigest(), printable(where)
    if isinstance(version := plain.get("spdxVersion"), str) and isinstance(parts := plain.get("packages", []), list):
        return Sbom("spdx", printable(version, 40), place, sha256, len(parts))
    version, parts = plain.get("specVersion"), plain.get("components", [])
    if plain.get("bomFormat") == "CycloneDX" and isinstance(version, str) and isinstance(parts, list):
        return Sbom("cyclonedx", printable(version, 40), place, sha256, len(parts))
    return None


# --- reading ------------------------------------------------------------------------------------------------


def _prefix(stream: Readable, limit: int) -> bytes:
    pieces, left = [], limit
    while left and (piece := stream.read(left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _whole(stream: Readable, size: int) -> str | None:
    return None if size > MAX_FILE_BYTES else _prefix(stream, size).decode("utf-8", "replace")


def _json(stream: Readable, size: int) -> Any:
    text = _whole(stream, size)
    try:
        return None if text is None else json.loads(text)
    except Exception:  # noqa: BLE001 - for eyes alone: what cannot be read is not shown
        return None
