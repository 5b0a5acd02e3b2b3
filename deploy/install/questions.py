"""What the installer cannot know, and asks: from flags, from a file of answers, or from the person at the keyboard.

An answer is looked at as soon as it is given. Examples and placeholders are no answers.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .layout import Role
from .talk import USAGE, Fault, say

Answers = dict[str, tuple[str, ...]]

_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9a-fA-F:]{2,45}")
_KEY = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MAX_ANSWERS_BYTES = 1 << 20
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - a hub is what hospitals reach, and it takes mutual TLS only


def _identifier(text: str) -> str:
    if not _IDENTIFIER.fullmatch(text):
        raise ValueError("1 to 64 of a-z, 0-9, dot, dash, underscore; it begins with a letter or a digit")
    if text in ("example-hospital", "example-hub"):
        raise ValueError("that is the example's")
    return text


def _host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError("a host name or an address")
    if text == "example.org" or text.endswith(".example.org"):
        raise ValueError("that is the example's")
    return text


def port_of(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise ValueError("a port is 1 to 65535")
    return int(text)


def _port(text: str) -> str:
    return str(port_of(text))


def host_and_port(text: str) -> tuple[str, int]:
    """`hub.hospital.org:8443`, `[2001:db8::1]:8443`."""
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError("HOST:PORT, for example hub.hospitals.net:8443")
    return _host(host.removeprefix("[").removesuffix("]")), port_of(port)


def _hub(text: str) -> str:
    host_and_port(text)
    return text


def _key(text: str) -> str:
    """64 hexadecimal digits, or the file that holds them."""
    if "/" in text or text.endswith(".pub"):
        path = Path(text)
        if path.suffix != ".pub" and Path(f"{text}.pub").exists():
            raise ValueError(f"{path} is a private key: give its public half, {path}.pub")
        try:
            text = path.read_text("utf-8")[:80].strip()
        except (OSError, UnicodeDecodeError):
            raise ValueError(f"{path} cannot be read") from None
    if not _KEY.fullmatch(text):
        raise ValueError("a public key is 64 hexadecimal digits, or the path of a .pub file")
    if not text.strip("0"):
        raise ValueError("zeros are nobody's key")
    return text


def _folder(text: str) -> str:
    if not text.startswith("/") or ".." in Path(text).parts or any(not sign.isprintable() for sign in text):
        raise ValueError("an absolute path")
    return text


def _digest(text: str) -> str:
    if not _DIGEST.fullmatch(text) or not text.removeprefix("sha256:").strip("0"):
        raise ValueError("sha256: and 64 hexadecimal digits, not zeros")
    return text


def _socket(text: str) -> str:
    if not text.startswith("unix:///"):
        raise ValueError("unix:///path/of/the.sock")
    return text


@dataclass(frozen=True)
class Question:
    """`asked`: put to the person when there is no answer. `needed`: without one there is no installation."""

    name: str
    words: str
    check: Callable[[str], str]
    many: bool = False
    asked: bool = True
    needed: bool = True
    default: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"


QUESTIONS: Mapping[Role, tuple[Question, ...]] = {
    "node": (
        Question("site", "this hospital's name in permits (a-z, 0-9, dot, dash, underscore)", _identifier),
        Question("hub", "the hub's address, HOST:PORT", _hub),
        Question("hub_key", "the hub's instruction key, as `cloister hub init` printed it", _key, True, needed=False),
        Question("witness_key", "the hub's witness key, likewise", _key, True, needed=False),
        Question("committee_key", "the Access Committee's public key (64 digits, or its .pub file)", _key, many=True),
        Question("steward_key", "the public keys of this hospital's data stewards", _key, many=True),
        Question("source_root", "the folders that images may be taken from", _folder, many=True),
        Question("engine", "the container engine's socket", _socket, asked=False, needed=False),
        Question("sentinel", "the id of a sentinel image that the engine has", _digest, asked=False, needed=False),
    ),
    "hub": (
        Question("name", "the hub's name in certificates (a-z, 0-9, dot, dash, underscore)", _identifier),
        Question("host", "the names and addresses that nodes call it by, the public one first", _host, many=True),
        Question("port", "the port that nodes reach", _port, default=("8443",)),
        Question("committee_key", "the Access Committee's public key (64 digits, or its .pub file)", _key, many=True),
        Question("listen", "the address it listens on", _host, asked=False, default=(_EVERYWHERE,)),
    ),
}  # fmt: skip


def given(role: Role, flags: Mapping[str, list[str]], file: Path | None) -> Answers:
    """What flags and file answer, checked. A flag counts more than the file."""
    filed = _read(role, file) if file else {}
    texts = {each.name: tuple(flags.get(each.name) or filed.get(each.name, ())) for each in QUESTIONS[role]}
    return {each.name: _checked(each, texts[each.name]) for each in QUESTIONS[role] if texts[each.name]}


def collect(role: Role, flags: Mapping[str, list[str]], file: Path | None, ask: Callable[[str], str] | None) -> Answers:
    """Every answer, checked. A flag counts more than the file; `ask` is None where nobody sits at the keyboard.

    Raises `Fault` that names every flag that is missing.
    """
    answers = given(role, flags, file)
    missing = []
    for question in QUESTIONS[role]:
        if question.name in answers:
            continue
        if ask is not None and question.asked:
            if told := _asked(question, ask):
                answers[question.name] = told
        elif question.default:
            answers[question.name] = question.default
        elif question.needed:
            missing.append(question)
    if missing:
        named = ", ".join(each.flag for each in missing)
        raise Fault(f"not answered: {named}", f"{missing[0].flag} is {missing[0].words}", USAGE)
    return answers


def _checked(question: Question, given: tuple[str, ...]) -> tuple[str, ...]:
    if len(given) > 1 and not question.many:
        raise Fault(f"{question.flag} is given once", "", USAGE)
    found: list[str] = []
    for text in given:
        try:
            found.append(question.check(text.strip()))
        except ValueError as error:
            raise Fault(f"{question.flag}: {error}", f"it is {question.words}", USAGE) from None
    return tuple(dict.fromkeys(found))


def _asked(question: Question, ask: Callable[[str], str]) -> tuple[str, ...]:
    more = " (several: with spaces between)" if question.many else ""
    known = f" [{question.default[0]}]" if question.default else "" if question.needed else " [later]"
    while True:
        text = ask(f"{question.words}{more}{known}: ").strip()
        given = tuple(text.split()) if question.many else (text,) if text else ()
        try:
            found = _checked(question, given or question.default)
            if found or not question.needed:
                return found
            say("  this has no default")
        except Fault as fault:
            say(f"  {fault.message}")


def _read(role: Role, file: Path) -> dict[str, tuple[str, ...]]:
    try:
        if file.stat().st_size > _MAX_ANSWERS_BYTES:
            raise Fault(f"{file} is no file of answers", "", USAGE)
        plain = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise Fault(f"{file} cannot be read: {error.strerror}", "", USAGE) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Fault(f"{file} is not TOML: {error}", "", USAGE) from None
    known = {question.name for question in QUESTIONS[role]}
    if unknown := sorted(set(plain) - known):
        raise Fault(f"{file}: unknown answer {unknown[0]}", f"known are {', '.join(sorted(known))}", USAGE)
    found = {}
    for name, value in plain.items():
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(each, str | int) and not isinstance(each, bool) for each in values):
            raise Fault(f"{file}: {name} is a text or a list of texts", "", USAGE)
        found[name] = tuple(str(each) for each in values)
    return found


def keyboard() -> Callable[[str], str] | None:
    """A way to ask the person, where one sits at a terminal."""
    if not sys.stdin.isatty():
        return None

    def ask(words: str) -> str:
        print(words, end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise Fault("no answer", "give it as a flag or in a file: --answers", USAGE)
        return line

    return ask


def explain(role: Role) -> str:
    """The answers that a file may hold, as that file: what has to be written is empty, the rest has its `#`."""
    lines = [f"# answers for `install.sh {role} --answers FILE`; each is a flag as well"]
    for question in QUESTIONS[role]:
        needed = question.needed and not question.default
        known = [json.dumps(each) for each in question.default] or ['""']
        value = f"[{', '.join(known)}]" if question.many else known[0]
        lines += ["", f"# {question.words}{'' if needed else ', may be left out'}"]
        lines.append(f"{'' if needed else '# '}{question.name} = {value}")
    return "\n".join(lines)
