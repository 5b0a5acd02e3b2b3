"""A group's commands by name, each with the module that has it: what a command line does not name is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

import typer


@dataclass(frozen=True)
class Part:
    """A command, or with `help` a group of them, under `attribute` of `node.cli.<module>`."""

    module: str
    attribute: str
    help: str = ""
    hidden: bool = False


def assemble(parts: Mapping[str, Part], only: str | None = None) -> typer.Typer:
    """The group of all these; or only its part `only`, where there is one of that name."""
    app = typer.Typer(no_args_is_help=True)
    app.callback()(_nothing)  # one command alone is a group as well
    for name, part in parts.items() if only is None or only not in parts else [(only, parts[only])]:
        found = getattr(import_module(f"node.cli.{part.module}"), part.attribute)
        if part.help:
            app.add_typer(found, name=name, help=part.help)
        else:
            app.command(name, hidden=part.hidden)(found)
    return app


def _nothing() -> None:
    """Nothing happens before the command itself."""
