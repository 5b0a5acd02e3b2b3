"""A container image as a value: what is in it, why it may not run here, and how it differs from an earlier one.

Everything that starts a program stands in the image's own configuration, and the hash of that is the image's id:
`ImageFacts` cannot exist with another configuration. Packages and SBOMs are what the image says of itself.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

from mediator import canonical
from mediator.canonical import loads_foreign
from mediator.errors import Code, Malformed, Reason
from mediator.grammar import check_digest

# The longest configurations published are some 30 kB; Docker allows 127 layers.
MAX_CONFIG_BYTES = 256 << 10
MAX_LAYERS = 512
# A conda image with CUDA holds about a thousand. What nobody could read, nobody can approve.
MAX_PACKAGES = 10_000
MAX_LISTED = 200
MAX_TEXT = 400

Origin = Literal["archive", "engine", "registry"]


def printable(text: str, limit: int = MAX_TEXT) -> str:
    """The same on one line without control, escape or direction characters: an image's texts may lie to a terminal."""
    shown = "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


@dataclass(frozen=True)
class Layer:
    """One layer: digest of its bytes as they came, digest of the unpacked tar file, and its size in bytes."""

    digest: str
    diff_id: str
    size_bytes: int

    def __post_init__(self) -> None:
        check_digest(self.digest, "a layer's digest")
        check_digest(self.diff_id, "a layer's diff id")


@dataclass(frozen=True, order=True)
class Package:
    """One installed package, by the data base of its own package manager."""

    kind: Literal["deb", "apk", "python", "conda"]
    name: str
    version: str


@dataclass(frozen=True, order=True)
class Sbom:
    """A software bill of materials that came with the image: where it stood and how many packages it names."""

    format: Literal["spdx", "cyclonedx"]
    format_version: str
    where: str
    sha256: str
    packages: int


@dataclass(frozen=True)
class Setting:
    """One thing that a configuration says: as people read it, and the hash of what really stands there.

    What is shown may be less (a secret's hash, a text cut short, an escape spelled out); two settings are the same
    where their hashes are.
    """

    shown: str
    sha256: str


@dataclass(frozen=True)
class ImageConfig:
    """What the configuration says (OCI image specification, config.md). Every text is `printable`.

    `settings` is all of it, whatever the other fields have: nothing that stands in a configuration is in none of them.
    """

    architecture: str
    system: str
    created: str
    user: str
    folder: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    labels: Mapping[str, str]
    volumes: tuple[str, ...]
    ports: tuple[str, ...]
    history: tuple[str, ...]
    diff_ids: tuple[str, ...]
    settings: Mapping[str, Setting]


@dataclass(frozen=True)
class ImageFacts:
    """An image as it came in.

    `image` is its id (the hash of `config`), `manifest` the digest of its manifest where it had one, `names` the tags
    it came with, `lineage` what it is a version of, `unread` what there was and could not be read.
    """

    KIND: ClassVar[str] = "cloister.image-facts"
    VERSION: ClassVar[int] = 1

    image: str
    manifest: str | None
    origin: Origin
    lineage: str
    names: tuple[str, ...]
    config: str
    layers: tuple[Layer, ...]
    packages: tuple[Package, ...]
    sboms: tuple[Sbom, ...]
    unread: tuple[str, ...]

    def __post_init__(self) -> None:
        check_digest(self.image, "an image")
        if self.manifest is not None:
            check_digest(self.manifest, "a manifest")
        if "sha256:" + hashlib.sha256(self.config.encode("utf-8")).hexdigest() != self.image:
            raise ValueError("the configuration is not the one that the image's id is the hash of")
        if self.parsed.diff_ids != tuple(layer.diff_id for layer in self.layers):
            raise ValueError("the layers are not those of the configuration")
        _bounded(self.packages, MAX_PACKAGES, "packages")
        for texts in (self.names, self.sboms, self.unread):
            _bounded(texts, MAX_LISTED, "names, bills of materials or unread files")
        texts = (
            self.lineage, *self.names, *self.unread,
            *(text for each in self.packages for text in (each.name, each.version)),
            *(text for each in self.sboms for text in (each.format_version, each.where, each.sha256)),
        )  # fmt: skip
        if any(text != printable(text) for text in texts):
            raise ValueError("a text that is too long or cannot be printed")

    @cached_property
    def parsed(self) -> ImageConfig:
        return read_config(self.config)

    @property
    def size_bytes(self) -> int:
        return sum(layer.size_bytes for layer in self.layers)


def read_facts(text: str) -> ImageFacts:
    """The inverse of `canonical.encode`. Raises `Malformed`."""
    return canonical.decode(ImageFacts, text.encode("utf-8", "surrogatepass"))


# --- the configuration --------------------------------------------------------------------------------------


def read_config(text: str) -> ImageConfig:
    """The configuration in an image's config file. Raises `Malformed`.

    Engines read its keys without regard to case, the last one winning: one that stands there twice is refused, and
    so is one that is not ASCII, or a different program would start than the one that is shown.
    """
    if len(text) > MAX_CONFIG_BYTES:
        raise Malformed(f"an image's configuration is over the limit of {MAX_CONFIG_BYTES} bytes")
    top = _members(loads_foreign(text.encode("utf-8", "surrogatepass")), "configuration")
    inner = _members(_given(top, "config", {}), "config")
    rootfs = _members(_given(top, "rootfs", {}), "rootfs")
    labels = _given(inner, "labels", {})
    if not isinstance(labels, dict):
        raise Malformed("an image's labels are not an object")
    return ImageConfig(
        architecture=_text(top.get("architecture")),
        system=_text(top.get("os")),
        created=_text(top.get("created")),
        user=_text(inner.get("user")),
        folder=_text(inner.get("workingdir")),
        entrypoint=_texts(inner.get("entrypoint")),
        command=_texts(inner.get("cmd")),
        labels={printable(key): _text(value) for key, value in _bounded_items(labels)},
        volumes=_keys(inner.get("volumes")),
        ports=_keys(inner.get("exposedports")),
        history=tuple(_history(_given(top, "history", []))),
        diff_ids=_texts(rootfs.get("diff_ids"), MAX_LAYERS),
        settings=_by_name(_settings(top, inner, rootfs)),
    )


# What chooses a program, or what it loads first: its value is shown. Other values are where people leave secrets, and
# their hashes are. The dynamic linker's, the shells' and the interpreters' (ld.so(8), bash(1), python(1), perlrun(1)…).
_CHOOSES = re.compile(
    r"(LD|DYLD|PYTHON|PERL|RUBY|BASH|GCONV|JULIA|LUA|R)_.*|PYTHON.*|PERL5.*|RUBY(OPT|LIB)|LUA.*|BASH.*|R(HOME|PROFILE)"
    r"|ENV|IFS|PS4|ZDOTDIR|GLIBC_TUNABLES|LOCPATH|CLASSPATH|VIRTUAL_ENV|NODE_OPTIONS|SHELL|HOME|TMPDIR|OPENSSL_CONF"
    r"|NVIDIA_(VISIBLE_DEVICES|DRIVER_CAPABILITIES|REQUIRE_.*)|CUDA_.*|(.*_)?(PATH|PRELOAD|OPTS|OPTIONS|STARTUP)"
)
# A setting's name for people, and whether more than its hash is shown.
_INNER = {
    "entrypoint": "entry point", "cmd": "command", "shell": "shell", "user": "user", "workingdir": "folder",
    "healthcheck": "health check", "stopsignal": "stop signal", "onbuild": "on build", "argsescaped": "args escaped",
    "hostname": "host name", "domainname": "domain name", "tty": "tty", "openstdin": "open stdin",
    "networkdisabled": "network disabled", "macaddress": "mac address", "stoptimeout": "stop timeout",
}  # fmt: skip
_TOP = {
    "os": "system", "architecture": "architecture", "variant": "variant", "created": "created", "author": "author",
    "os.version": "system version", "os.features": "system features", "docker_version": "built with",
}  # fmt: skip
_KINDS = {"volumes": "volume", "exposedports": "port", "labels": "label"}
_PLAIN = re.compile(r"[A-Za-z0-9_./:@+-]{1,200}")
# a search path of a hundred folders
_MAX_SETTING = 4000


def _by_name(settings: Iterable[tuple[str, Setting]]) -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for name, setting in settings:
        if name in found:
            raise Malformed("two settings of an image's configuration that nobody could tell apart")
        found[name] = setting
    return found


def _settings(
    top: dict[str, Any], inner: dict[str, Any], rootfs: dict[str, Any]
) -> Iterator[tuple[str, Setting]]:  # fmt: skip
    """Everything that a configuration says, each by a name of its own; what nobody foresaw by its key and hash."""
    known = [key for key in _INNER if inner.get(key) is not None]
    yield from ((_INNER[key], _setting(inner[key])) for key in known)
    yield from _environment(_texts_raw(inner.get("env")))
    for key, kind in _KINDS.items():
        yield from _each(kind, _given(inner, key, {}))
    yield from ((_TOP[key], _setting(top[key])) for key in _TOP if top.get(key) is not None)
    rest = {f"config.{key}": inner[key] for key in inner if key not in {*_INNER, *_KINDS, "env"}}
    rest |= {key: top[key] for key in top if key not in {*_TOP, "config", "rootfs", "history"}}
    rest |= {f"rootfs.{key}": rootfs[key] for key in rootfs if key not in ("diff_ids", "type")}
    for key in sorted(key for key, value in rest.items() if value is not None):
        yield _named("other", key), _hidden(rest[key])
    if rootfs.get("type") is not None:
        yield "root file system", _setting(rootfs["type"])
    yield "layers", _hidden(rootfs.get("diff_ids"))
    steps = _given(top, "history", [])
    yield "steps", _hidden([_members(step, "history").get("created_by") for step in steps])
    yield "steps' dates and notes", _hidden([_without(step, "created_by") for step in steps])


def _environment(entries: list[str]) -> Iterator[tuple[str, Setting]]:
    """Each variable; of one that stands there twice each, by number."""
    times: Counter[str] = Counter()
    for entry in entries:
        name, given, value = entry.partition("=")
        times[name] += 1
        again = f" ({times[name]})" if times[name] > 1 else ""
        shown = _setting(value) if _CHOOSES.fullmatch(name.upper()) else _hidden(value)
        yield _named("environment", name) + again + ("" if given else ", without a value"), shown


def _each(kind: str, given: Any) -> Iterator[tuple[str, Setting]]:
    members = given if isinstance(given, dict) else {key or "": {} for key in given}
    for name, value in sorted(members.items()):
        yield _named(kind, name), _setting(value) if value != {} else Setting("declared", _hidden(value).sha256)


def _named(kind: str, name: str) -> str:
    """No two names are shown alike: one that is more than letters, digits and signs has its hash beside it."""
    return f"{kind} {name}" if _PLAIN.fullmatch(name) else f"{kind} {printable(name)} sha256:{_sha256(name)}"


def _setting(value: Any) -> Setting:
    """A value as it is, on one line; with its hash where that does not show all of it."""
    whole = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    shown, digest = printable(whole, _MAX_SETTING), _sha256(json.dumps(value, sort_keys=True))
    return Setting(shown if shown == whole else f"{shown} sha256:{digest}", digest)


def _hidden(value: Any) -> Setting:
    digest = _sha256(json.dumps(value, sort_keys=True))
    return Setting(f"sha256:{digest}", digest)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _without(step: Any, key: str) -> dict[str, Any]:
    return {name: value for name, value in _members(step, "history").items() if name != key}


def _texts_raw(value: Any) -> list[str]:
    _texts(value)
    return [each or "" for each in value or []]  # null is an empty text, to us as to an engine


def _members(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"an image's {what} is not an object")
    members = {key.lower(): member for key, member in value.items()}
    if len(members) != len(value) or not all(key.isascii() for key in value):
        raise Malformed(f"a key of an image's {what} stands there twice")
    return members


def _given(members: dict[str, Any], key: str, default: Any) -> Any:
    return default if members.get(key) is None else members[key]


def _text(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise Malformed("an image's configuration holds something else where a text belongs")
    return printable(value or "")


def _texts(value: Any, limit: int = MAX_LISTED) -> tuple[str, ...]:
    if value is not None and not isinstance(value, list):
        raise Malformed("an image's configuration holds something else where a list belongs")
    if len(value or []) > limit:
        raise Malformed("a list in an image's configuration is too long")
    return tuple(_text(each) for each in value or [])


def _keys(value: Any) -> tuple[str, ...]:
    """Volumes and ports: an object whose keys count, or (in images of old tools) a list."""
    return tuple(sorted(_texts(list(value) if isinstance(value, dict) else value)))


def _bounded_items(labels: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    if len(labels) > MAX_LISTED:
        raise Malformed("more labels than anybody could read")
    return sorted(labels.items())


def _history(steps: Any) -> Iterator[str]:
    if not isinstance(steps, list) or len(steps) > MAX_LAYERS:
        raise Malformed("an image's history is not a list, or too long")
    for step in steps:
        yield _text(_members(step, "history").get("created_by"))


def _bounded(listed: tuple[Any, ...], limit: int, what: str) -> None:
    if len(listed) > limit:
        raise ValueError(f"more than {limit} {what}")


# --- judging ------------------------------------------------------------------------------------------------


def unfit(facts: ImageFacts, architecture: str) -> list[Reason]:
    """Why an image may not be approved on a machine of this architecture; empty when it may.

    1. It is made for this machine: nothing here emulates another.
    2. It names a program: the broker gives it none.
    3. It declares no volume: the engine would add one, writable and unbounded.
    """
    found, config = [], facts.parsed
    if (config.system, config.architecture) != ("linux", architecture):  # (1)
        made = printable(f"{config.system}/{config.architecture}", 40)
        found.append(f"the image is made for {made}, this machine is linux/{architecture}")
    if not (config.entrypoint or config.command):  # (2)
        found.append("the image names no program to start")
    if config.volumes:  # (3)
        found.append("the image declares a volume")
    return [Reason(Code.IMAGE_NOT_APPROVED, detail) for detail in found]
