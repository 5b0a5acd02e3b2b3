"""A configuration file as `cloister config` reads it: whose it is, what its keys are, every fault in it and where."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from mediator.errors import UsageFault
from node.cli.files import read_bytes

_MAX_BYTES = 1 << 20
_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
_LENGTHS = {"min_length": "at least", "max_length": "at most"}


@dataclass(frozen=True)
class ConfigKind:
    """Whose configuration: its model, and what each key means."""

    name: Literal["node", "hub"]
    model: type[BaseModel]
    words: Mapping[str, str]

    def read(self, plain: Mapping[str, Any]) -> BaseModel:
        """The configuration in parsed TOML, as the process itself reads it. Raises `ValidationError`."""
        if self.name == "hub":
            return self.model.model_validate(plain)
        return self.model.model_validate_json(json.dumps(plain, allow_nan=False, default=str))


@dataclass(frozen=True)
class ConfigFault:
    """One thing wrong in a file; line 0 where it is in no line."""

    line: int
    key: str
    fault: str
    hint: str


def node_kind() -> ConfigKind:
    from node.host.config import NodeConfig
    from node.host.config_words import WORDS

    return ConfigKind("node", NodeConfig, WORDS)


def hub_kind() -> ConfigKind:
    from federation.hub.config import HubConfig
    from federation.hub.config_words import WORDS

    return ConfigKind("hub", HubConfig, WORDS)


def read_toml(path: Path) -> tuple[str, Mapping[str, Any]]:
    """A file's text and what it holds. Raises `UsageFault`, with the line where it is no TOML."""
    try:
        text = read_bytes(path, limit=_MAX_BYTES).decode("utf-8")
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageFault(
            f"{path} is not TOML: {error}", hint="mend that line first: nothing after it was read"
        ) from None
    except (UnicodeDecodeError, RecursionError):
        raise UsageFault(f"{path} is not a text in UTF-8") from None


def kind_of(plain: Mapping[str, Any]) -> ConfigKind:
    """Whose a configuration is: only a hub has a port that others reach."""
    return hub_kind() if "ingress" in plain else node_kind()


# --- keys


def fields(kind: ConfigKind) -> Mapping[str, FieldInfo]:
    """Every key by its dotted name; those in the tables of a list are named as if there were one."""
    return dict(_fields(kind.model, ""))


def _fields(model: type[BaseModel], before: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        inner = section_of(field)
        if inner is None:
            yield f"{before}{name}", field
        else:
            if get_origin(field.annotation) is tuple and f"{before}{name}" in ("staff.persons", "airlock.persons"):
                yield f"{before}{name}", field
            yield from _fields(inner, f"{before}{name}.")


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that is a section, or a list of tables."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def type_of(annotation: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(type_of(each) for each in inner if each is not NoneType))
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if origin in (tuple, list):
        return f"a list, each {type_of(inner[0])}"
    if origin is not None and inner:  # Annotated
        return type_of(inner[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a table of " + ", ".join(annotation.model_fields)
    return _TYPES.get(annotation, "a text")


def range_of(field: FieldInfo) -> str:
    """What values there may be, where the type alone does not say it."""
    said = []
    kinds = {field.annotation, *get_args(field.annotation)}
    of = "characters" if str in kinds and get_origin(field.annotation) in (None, Union, UnionType) else "entries"
    for limit in field.metadata:
        for name, word in _BOUNDS.items():
            if (value := getattr(limit, name, None)) is not None:
                said.append(f"{word} {value:,}" if isinstance(value, int) else f"{word} {value:g}")
        for name, word in _LENGTHS.items():
            if (value := getattr(limit, name, None)) is not None:
                said.append(f"{word} {value} {of}")
    return ", ".join(said)


# --- faults


def faults(kind: ConfigKind, text: str, plain: Mapping[str, Any]) -> list[ConfigFault]:
    """Every fault of a file, by line."""
    try:
        kind.read(plain)
    except ValidationError as error:
        return sorted(
            (_fault(kind, text, each) for each in error.errors(include_url=False, include_input=False)),
            key=lambda fault: (fault.line, fault.key),
        )
    except ValueError:
        return [ConfigFault(0, "", "a number in it is not finite", "")]
    return []


def _fault(kind: ConfigKind, text: str, error: Any) -> ConfigFault:
    where: Sequence[int | str] = error["loc"]
    key = ".".join(map(str, where))
    if error["type"] == "extra_forbidden":
        known = [name.rpartition(".")[2] for name in fields(kind)] + list(kind.model.model_fields)
        near = get_close_matches(str(where[-1]), known, 1)
        hint = f"did you mean {near[0]}?" if near else f"the keys there are: cloister config explain --{kind.name}"
        return ConfigFault(line_of(text, where), key, "unknown key", hint)
    if error["type"] == "missing":
        return ConfigFault(line_of(text, where[:-1]), key, "is missing", kind.words.get(key, ""))
    reason = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return ConfigFault(line_of(text, where), key, f"{reason[:1].lower()}{reason[1:]}", kind.words.get(key, ""))


def line_of(text: str, where: Sequence[int | str]) -> int:
    """The line on which a key, or else its section, stands; 0 where none does."""
    names = [str(part) for part in where if isinstance(part, str)]
    wanted = next((part for part in where if isinstance(part, int)), 0)
    tables: Counter[str] = Counter()
    section, here, best = "", True, 0
    for count, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"^\s*(\[\[?)\s*([A-Za-z0-9_.-]+)\s*\]", line):
            section = header[2]
            here = header[1] == "[" or tables[section] == wanted
            tables[section] += header[1] == "[["
            if here and section.split(".") == names[: section.count(".") + 1]:
                best = count
        elif here and (key := re.match(r"^\s*([A-Za-z0-9_-]+)\s*=", line)):
            full = f"{section}.{key[1]}".strip(".").split(".")
            if full == names[: len(full)]:
                return count
    return best
