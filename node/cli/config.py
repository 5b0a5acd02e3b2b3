"""`cloister config`: a node's or a hub's configuration: its values, what a key means, what is wrong in a file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mediator.errors import UsageFault
from node.cli.options import HUB_FILE, HUB_VARIABLE, NODE_FILE, NODE_VARIABLE, Json
from node.cli.output import say, show, table

if TYPE_CHECKING:
    from node.cli.config_file import ConfigKind

app = typer.Typer(no_args_is_help=True)

# a secret's place may tell as much as its name does
MASKED = "(masked)"

_File = Annotated[
    Path | None,
    typer.Option("--config", help=f"the file (default: {NODE_FILE}, or {HUB_FILE} where there is no node)"),
]


@app.command("show")
def show_values(config: _File = None, as_json: Json = False) -> None:
    """Every key with the value it has, and whether the file says so or it is the default. Secrets are masked."""
    from node.cli.config_file import kind_of, read_toml

    path = config or found_file()
    _, plain = read_toml(path)
    rows = list(values(kind_of(plain), plain, path))
    shown = table(("key", "value", "from"), ((row["key"], row["value"], row["from"]) for row in rows))
    show(rows, as_json=as_json, table=shown)


@app.command("explain")
def explain(
    key: Annotated[str, typer.Argument(help="a key (limits.cpus), or a section for all of its keys")] = "",
    node: Annotated[bool, typer.Option("--node", help="of a node's configuration alone")] = False,
    hub: Annotated[bool, typer.Option("--hub", help="of a hub's configuration alone")] = False,
    as_json: Json = False,
) -> None:
    """What a key means, its type, its default and its range."""
    from node.cli.config_file import hub_kind, node_kind

    kinds = [each() for each, wanted in ((node_kind, node), (hub_kind, hub)) if wanted or node == hub]
    rows = [row for kind in kinds for row in explained(kind, key.strip("[]"))]
    if not rows:
        known = [row["key"] for kind in kinds for row in explained(kind, "")]
        near = get_close_matches(key, known, 3) or sorted({each.partition(".")[0] for each in known})
        raise UsageFault(f"there is no key {key}", hint=f"known: {', '.join(near)}")
    if as_json or len(rows) > 2:
        columns = ("configuration", "key", "type", "default", "range", "meaning")
        show(rows, as_json=as_json, table=table(columns, ([row[name] for name in columns] for row in rows)))
        return
    for row in rows:
        show(row, as_json=False)


@app.command("validate")
def validate(
    file: Annotated[
        Path | None, typer.Argument(help="a node's or a hub's TOML file; this machine's own if not given")
    ] = None,
    as_json: Json = False,
) -> None:
    """Every fault in a file at once, with its line. Exit code 2 where there is one."""
    from node.cli.config_file import faults, kind_of, read_toml

    file = file or found_file()
    text, plain = read_toml(file)
    kind = kind_of(plain)
    found = faults(kind, text, plain)
    rows = [{"line": each.line, "key": each.key, "fault": each.fault, "hint": each.hint} for each in found]
    if as_json or rows:
        show(rows, as_json=as_json, table=table(("line", "key", "fault", "hint"), (row.values() for row in rows)))  # type: ignore[misc]
    if rows:
        raise UsageFault(
            f"{len(rows)} fault{'s' if len(rows) > 1 else ''} in {file}", hint="cloister config explain KEY"
        )
    say(f"{file} is a {kind.name}'s configuration, and whole")


def values(kind: ConfigKind, plain: Mapping[str, Any], path: Path) -> Iterator[dict[str, Any]]:
    """The effective value of every key, in the order of the model. Raises `UsageFault` for a file with a fault."""
    from node.cli.config_file import faults

    if found := faults(kind, "", plain):
        raise UsageFault(f"{path}: {found[0].key}: {found[0].fault}", hint=f"cloister config validate {path}")
    whole = kind.read(plain).model_dump(mode="json")
    yield from _values(kind.model, whole, plain, "")


def _values(model: Any, whole: Mapping[str, Any], plain: Mapping[str, Any], before: str) -> Iterator[dict[str, Any]]:
    for name, field in model.model_fields.items():
        value, said = whole[name], plain.get(name)
        if isinstance(value, dict):
            yield from _values(field.annotation, value, said or {}, f"{before}{name}.")
        else:
            shown = MASKED if not field.repr and value is not None else value
            yield {"key": f"{before}{name}", "value": shown, "from": "default" if name not in plain else "file"}


def explained(kind: ConfigKind, key: str) -> Iterator[dict[str, Any]]:
    """A line for a key, or for each key of a section; for every one where `key` is empty."""
    from pydantic_core import PydanticUndefined

    from node.cli.config_file import fields, range_of, type_of

    for name, field in fields(kind).items():
        if key in ("", name) or name.startswith(f"{key}."):
            none = field.default is PydanticUndefined
            yield {
                "configuration": kind.name,
                "key": name,
                "meaning": kind.words[name],
                "type": type_of(field.annotation),
                "default": "none: it must be written" if none else _default(field.default),
                "range": range_of(field),
            }


def _default(value: Any) -> Any:
    if value is None:
        return "nothing"
    return "an empty list" if value == () else str(value).lower() if isinstance(value, bool) else value


def found_file() -> Path:
    """The configuration of this machine: what a variable names, or what lies where an installer puts it."""
    named = [os.environ.get(variable) for variable in (NODE_VARIABLE, HUB_VARIABLE)]
    places = [Path(each) for each in named if each] or [each for each in (NODE_FILE, HUB_FILE) if each.exists()]
    return places[0] if places else NODE_FILE
