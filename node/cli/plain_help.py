"""Help as plain text: every word of it is shown, in the terminal, in a pipe and in a manual page.

Typer would lay it out by rich: markup swallows `[trust]`, a narrow box cuts identifiers, and rich alone takes longer
to load than a command does to answer.
"""

from __future__ import annotations

from typing import Any

import click
import typer.core
import typer.main

Sections = list[tuple[str, list[tuple[str, str]]]]


class PlainArgument(typer.core.TyperArgument):
    """A positional argument that keeps its description: click 8.5 has a field of the same name and empties it."""

    def __init__(self, *, help: str | None = None, **rest: Any) -> None:
        super().__init__(help=help, **rest)
        self.help = help


class PlainCommand(typer.core.TyperCommand):
    """A command whose help is `sections`, wrapped and never cut."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write(self, ctx, formatter)


class PlainGroup(typer.core.TyperGroup):
    """A group of them."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write(self, ctx, formatter)


def set_up() -> None:
    """Have typer make its commands of these classes. They are names of its modules; it has no setting for all."""
    vars(typer.core)["HAS_RICH"] = False
    vars(typer.main).update(TyperArgument=PlainArgument, TyperCommand=PlainCommand, TyperGroup=PlainGroup)


def sections(command: click.Command, context: click.Context) -> Sections:
    """What a command takes and what stands below it: a title, then (name, description) for each."""
    positional = [each for each in command.params if isinstance(each, click.Argument)]
    options = [each for each in command.get_params(context) if not isinstance(each, click.Argument)]
    shown: Sections = []
    for title, parameters in (("Arguments", positional), ("Options", options)):
        records = [record for each in parameters if (record := each.get_help_record(context))]
        shown.append((title, records))
    if isinstance(command, click.Group):
        below = ((name, command.commands[name]) for name in command.list_commands(context))
        shown.append(("Commands", [(name, summary(each)) for name, each in below if not each.hidden]))
    return [(title, records) for title, records in shown if records]


def summary(command: click.Command) -> str:
    """The first paragraph of a command's help, on one line."""
    return " ".join((command.short_help or command.help or "").split("\n\n")[0].split())


def _write(command: click.Command, context: click.Context, formatter: click.HelpFormatter) -> None:
    command.format_usage(context, formatter)
    command.format_help_text(context, formatter)
    for title, records in sections(command, context):
        with formatter.section(title):
            formatter.write_dl(records)
