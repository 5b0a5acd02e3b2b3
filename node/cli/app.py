"""The tree of commands. Each group stands in its own module and imports what is heavy when it runs."""

from __future__ import annotations

from importlib import import_module

import typer

from node.cli import plain_help
from node.cli.parts import assemble

plain_help.set_up()  # before any command is made

HELP = """cloister: take part in federated cancer-imaging research without letting an image out.

Hospital IT uses `cloister node`, `cloister deid` and `cloister check`; a data protection officer
`cloister audit verify`; the Access Committee `cloister permit`; a researcher `cloister job`; the hub's coordinator
`cloister hub`.

Exit codes: 0 done, 1 our defect, 2 wrong usage, 3 refused by a rule, 4 integrity broken, 5 not now (safe to retry).
"""


# name of the group: the module below `node.cli` that has it, and what its help says
_GROUPS = {
    "node": ("it.node", "A hospital's node: install, serve, bring data in, accept permits, pause."),
    "hub": ("coordinator.hub", "The central hub: enrol sites, publish permits, run federated rounds."),
    "deid": ("steward.deid", "De-identify a folder by itself; explain and verify."),
    "job": ("researcher.job", "For researchers: make a job, try it at home, order a run."),
    "permit": ("committee.permit", "For the Access Committee: sign permits and revocation lists."),
    "audit": ("auditor.audit", "Read and check an audit log, also offline and on a copy."),
    "config": ("config", "A node's or a hub's configuration: its values, what a key means, what is wrong in a file."),
    "support": ("support", "What one may hand to who helps: nothing of a patient's is in it."),
    "keys": ("keys", "Make key files."),
}


# what is a command of the root itself, and the module that has it
_COMMANDS = {
    "check": ("it.check", "What stands and what is missing on this machine, each with what to do about it."),
    "completion": ("shell", "Print what bash, zsh or fish needs to complete commands and options."),
    "man": ("shell", "Write the manual pages."),
}


def application(first: str | None = None, second: str | None = None) -> typer.Typer:
    """The whole command line; or only the group `first`, and of a group that stands in parts only `second`, so that a
    command does not wait for the others' imports."""
    app = _root_app()
    for name in [first] if first in _GROUPS else _GROUPS:
        module, words = _GROUPS[name]
        app.add_typer(_group(module, second if name == first else None), name=name, help=words)
    if first not in _GROUPS:
        for name in _COMMANDS:
            _add_command(app, name)
    return app


def _group(module: str, second: str | None) -> typer.Typer:
    found = import_module(f"node.cli.{module}")
    whole: typer.Typer = assemble(found.PARTS, second) if hasattr(found, "PARTS") else found.app
    return whole


def outline() -> typer.Typer:
    """The first words alone, each with what it is for: all that help, a version or a slip of the finger needs."""
    app = _root_app()
    for name, (_, words) in _GROUPS.items():
        empty = typer.Typer()
        empty.callback()(lambda: None)
        app.add_typer(empty, name=name, help=words)
    for name, (_, words) in _COMMANDS.items():
        app.command(name, short_help=words)(lambda: None)
    return app


def for_words(first: str | None, second: str | None = None) -> typer.Typer:
    """What a command line that begins with these two words needs: nothing else is imported."""
    if first in _GROUPS:
        return application(first, second)
    if first in _COMMANDS:
        app = _root_app()
        _add_command(app, first)
        return app
    return outline()


def _add_command(app: typer.Typer, name: str) -> None:
    module, words = _COMMANDS[name]
    app.command(name, short_help=words)(getattr(import_module(f"node.cli.{module}"), name))


def _root_app() -> typer.Typer:
    # help is plain text; of a slip of the finger click itself says what may have been meant
    app = typer.Typer(
        help=HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        rich_markup_mode=None,
        suggest_commands=False,
    )
    app.callback(invoke_without_command=True)(_root)
    return app


def _root(
    context: typer.Context,
    show_version: bool = typer.Option(False, "--version", help="print the version and exit", is_eager=True),
) -> None:
    if show_version:
        from importlib.metadata import version

        typer.echo(f"cloister {version('cloister')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit
