"""The tree of commands. Each group stands in its own module and imports what is heavy when it runs."""

from __future__ import annotations

from importlib.metadata import version

import typer

from node.cli import audit, check, deid, hub, job, keys, node, permit

HELP = """cloister: take part in federated cancer-imaging research without letting an image out.

Hospital IT uses `cloister node`, `cloister deid` and `cloister check`; a data protection officer
`cloister audit verify`; the Access Committee `cloister permit`; a researcher `cloister job`; the hub's coordinator
`cloister hub`.

Exit codes: 0 done, 1 our defect, 2 wrong usage, 3 refused by a rule, 4 integrity broken, 5 not now (safe to retry).
"""


def application() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
    app.callback(invoke_without_command=True)(_root)
    app.add_typer(
        node.app, name="node", help="A hospital's node: install, serve, bring data in, accept permits, pause."
    )
    app.add_typer(hub.app, name="hub", help="The central hub: enrol sites, publish permits, run federated rounds.")
    app.add_typer(deid.app, name="deid", help="De-identify a folder by itself; explain and verify.")
    app.add_typer(job.app, name="job", help="For researchers: order a run.")
    app.add_typer(permit.app, name="permit", help="For the Access Committee: sign permits and revocation lists.")
    app.add_typer(audit.app, name="audit", help="Check an audit log, offline.")
    app.add_typer(keys.app, name="keys", help="Make key files.")
    app.command("check")(check.check)
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
