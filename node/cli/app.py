"""The tree of commands. Each group stands in its own module and imports what is heavy when it runs."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version

import typer

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
    "audit": ("auditor.audit", "Check an audit log, offline."),
    "config": ("config", "A node's or a hub's configuration: its values, what a key means, what is wrong in a file."),
    "support": ("support", "What one may hand to who helps: nothing of a patient's is in it."),
    "keys": ("keys", "Make key files."),
}


def application(first: str | None = None) -> typer.Typer:
    """The whole command line; or only the group `first`, so that a command does not wait for the others' imports."""
    app = typer.Typer(help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
    app.callback(invoke_without_command=True)(_root)
    for name in [first] if first in _GROUPS else _GROUPS:
        module, words = _GROUPS[name]
        app.add_typer(import_module(f"node.cli.{module}").app, name=name, help=words)
    if first not in _GROUPS:
        app.command("check")(import_module("node.cli.it.check").check)
    return app


def _root(
    context: typer.Context,
    show_version: bool = typer.Option(False, "--version", help="print the version and exit", is_eager=True),
) -> None:
    if show_version:
        typer.echo(f"cloister {version('cloister')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit
