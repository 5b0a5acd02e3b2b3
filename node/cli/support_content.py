"""What goes into a support bundle. Nothing does but what is named here: numbers, and words out of closed lists.

No text of anybody's passes: a path, a host, a person, a key, a file's name or a message may name a patient. A finding
is its subject and its state; a value of the configuration is a number, a yes or no, one of the words the key allows, or
how many entries it has; a log line is its level, its logger, the class of an error and its place in our own source.
"""

from __future__ import annotations

import builtins
import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

HOME = Path(__file__).resolve().parents[2]
_PACKAGES = ("node", "mediator", "containers", "federation", "durable")
_LOGGERS = frozenset({"cloister.link", "cloister.hub"})
_LEVELS = frozenset({"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"})
_LINE = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d{3}Z ([a-z]+) ([A-Z]+) ([A-Za-z0-9_.]+): (.*)$", re.ASCII)
_TAIL_BYTES = 2 << 20
_ERROR = re.compile(r"\[([A-Za-z_]+)(?::|\]| at ([A-Za-z0-9_]+/[A-Za-z0-9_]+\.py):(\d{1,5})\])", re.ASCII)
# a word of a version: 26.1.5, 0.2.0rc1, 6.1.0-18-amd64 has letters between its numbers, so these are kept alone
_VERSION = re.compile(r"^\d+(?:\.\d+){0,3}", re.ASCII)
_SYSTEMS = frozenset({"debian", "ubuntu", "rhel", "rocky", "almalinux", "fedora", "sles", "opensuse-leap"})
_MACHINES = frozenset({"x86_64", "aarch64"})
_UNIT = re.compile(r"^cloister-(?:guard|core|intake|broker|link|node|hub|superlink)\.(?:service|target|socket|timer)$")
_UNIT_WORDS: Mapping[str, frozenset[str]] = {
    "ActiveState": frozenset({"active", "reloading", "inactive", "failed", "activating", "deactivating"}),
    "SubState": frozenset(
        {"running", "dead", "exited", "failed", "start", "stop", "auto-restart", "listening", "active"}
    ),
    "Result": frozenset(
        {
            "success",
            "exit-code",
            "signal",
            "core-dump",
            "watchdog",
            "timeout",
            "start-limit-hit",
            "oom-kill",
            "resources",
        }
    ),
}
_ASK_S = 20.0
OTHER = "(other)"


def version_of(text: str) -> str:
    """The numbers a version begins with."""
    found = _VERSION.match(text)
    return found[0] if found else OTHER


def one_of(text: str, known: Iterable[str]) -> str:
    return text if text in known else OTHER


def versions(release: Mapping[str, str], kernel: str, machine: str, python: str, cloister: str) -> dict[str, str]:
    """Of us and of the machine, from os-release(5) and uname(2)."""
    return {
        "cloister": version_of(cloister),
        "python": version_of(python),
        "system": one_of(release.get("ID", ""), _SYSTEMS),
        "system_version": version_of(release.get("VERSION_ID", "")),
        "kernel": version_of(kernel),
        "machine": one_of(machine, _MACHINES),
    }


def findings(found: Iterable[Mapping[str, Any]], known: Iterable[str]) -> list[dict[str, str]]:
    """The check's lines: what was looked at and how it stands, never the detail. A hub's sites are `site`."""
    names = frozenset(known)
    return [
        {"what": one_of("site" if each["what"].startswith("site ") else each["what"], names), "state": each["state"]}
        for each in found
    ]


def known_findings() -> frozenset[str]:
    """Every subject that a check of ours has, as its source names it."""
    text = "".join(path.read_text("utf-8") for path in (HOME / "node" / "cli").rglob("check*.py"))
    text += (HOME / "node" / "host" / "placeholders.py").read_text("utf-8")
    said = set(re.findall(r'(?:finding|disk|volume|_days|Placeholder)\(\s*"([A-Za-z\' ]+)"', text)) | {"site"}
    trusted = ("committee", "stewards", "hub", "witnesses", "persons", "reviewers")
    return frozenset(said | {"instruction key", "witness key"} | {f"trust in {each}" for each in trusted})


def configuration(rows: Iterable[Mapping[str, Any]], fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every key with what may be said of its value."""
    return [
        {"key": row["key"], "value": _value(row["value"], fields.get(row["key"])), "from": row["from"]} for row in rows
    ]


def _value(value: Any, field: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value if not isinstance(value, int) or isinstance(value, bool) or abs(value) < 1 << 53 else OTHER
    if field is not None and get_origin(field.annotation) is Literal and value in get_args(field.annotation):
        return value
    return f"({len(value)} entries)" if isinstance(value, list) else "(a text)"


def counts(status: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers and yes or no of what core answers; and what of it is one of our own words."""
    from node.ipc.node import Status

    closed = get_type_hints(Status)
    return {
        key: value
        for key, value in status.items()
        if value is None
        or isinstance(value, bool | int | float)
        or (get_origin(closed.get(key)) is Literal and value in get_args(closed[key]))
    }


# --- units and logs


def units() -> list[dict[str, Any]]:
    """How systemd has our units; empty where there is none."""
    wanted = ["Id", *_UNIT_WORDS, "NRestarts", "ExecMainStatus"]
    answer = asked("systemctl", "show", "cloister-*", "--all", f"--property={','.join(wanted)}", "--no-pager")
    found = []
    for block in answer.split("\n\n"):
        said = dict(line.partition("=")[::2] for line in block.splitlines())
        if _UNIT.match(name := said.get("Id", "")):
            row: dict[str, Any] = {"unit": name}
            row |= {key: one_of(said.get(key, ""), words) for key, words in _UNIT_WORDS.items()}
            row |= {key: int(said[key]) for key in ("NRestarts", "ExecMainStatus") if said.get(key, "").isdecimal()}
            found.append(row)
    return found


def asked(*command: str) -> str:
    """A program's answer; empty where it is not there or does not answer."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_ASK_S, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def log_texts(folder: Path) -> Iterator[str]:
    """The newest of each log of a node's or a hub's, and of the journal."""
    for path in sorted(folder.glob("*.log")):
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
                yield file.read(_TAIL_BYTES).decode("utf-8", "replace")
        except OSError:
            continue
    yield asked("journalctl", "-u", "cloister-*", "-o", "cat", "-n", "20000", "--no-pager")


def log_lines(texts: Iterable[str]) -> list[dict[str, Any]]:
    """How often each kind of line was logged, and when last."""
    often: Counter[tuple[str, str, str, str, str]] = Counter()
    last: dict[tuple[str, str, str, str, str], str] = {}
    for text in texts:
        for line in text.splitlines():
            if kind := _kind(line):
                often[kind[1]] += 1
                last[kind[1]] = max(last.get(kind[1], ""), kind[0])
    names = ("process", "level", "logger", "error", "place")
    return [dict(zip(names, key, strict=True)) | {"times": often[key], "last": last[key]} for key in sorted(often)]


def _kind(line: str) -> tuple[str, tuple[str, str, str, str, str]] | None:
    """When, and (process, level, logger, error, place); None for what is no line of ours."""
    if line.startswith("{"):
        line = _as_text(line)
    found = _LINE.match(line)
    if found is None or found[3] not in _LEVELS:
        return None
    at, process, level, logger, rest = found.groups()
    errors = _ERROR.findall(rest)
    error, place, number = errors[-1] if errors else ("", "", "")
    said = one_of(error, _classes()) if error else ""
    where = f"{place}:{int(number)}" if place in _places() else ""
    processes = ("core", "intake", "broker", "link", "supervisor", "guard", "hub", "web", "sender")
    return at, (one_of(process, processes), level, one_of(logger, _loggers()), said, where)


def _as_text(line: str) -> str:
    try:
        said = json.loads(line)
        place = f" at {said['place']}" if "place" in said else ""
        error = f" [{said['error']}{place}]" if "error" in said else ""
        return f"{said['time']} {said['process']} {said['level'].upper()} {said['logger']}: -{error}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


@cache
def _sources() -> tuple[Path, ...]:
    return tuple(path for package in _PACKAGES for path in (HOME / package).rglob("*.py"))


@cache
def _places() -> frozenset[str]:
    return frozenset(f"{path.parent.name}/{path.name}" for path in _sources())


@cache
def _loggers() -> frozenset[str]:
    return _LOGGERS | {".".join(path.relative_to(HOME).with_suffix("").parts) for path in _sources()} | {"node"}


@cache
def _classes() -> frozenset[str]:
    """Python's own exceptions, and the codes of ours as our source has them."""
    theirs = {name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    ours = (re.findall(r'^    code = "([a-z_]+)"', path.read_text("utf-8"), re.M) for path in _sources())
    return frozenset(theirs.union(*ours))
