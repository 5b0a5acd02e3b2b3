"""`cloister hub witness`: what the hub has co-signed of the sites' audit logs, for their auditors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from node.cli.coordinator.desk import opened
from node.cli.files import check_new, write_new
from node.cli.id_prefix import one_of
from node.cli.options import HubConfigPath
from node.cli.output import say

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _group() -> None:
    """What the hub has co-signed of the sites' audit logs."""


@app.command("export")
def export(
    config: HubConfigPath,
    site: Annotated[str, typer.Argument(help="the site, or the beginning of its name")],
    out: Annotated[Path | None, typer.Option(help="the file to write; without it, standard output")] = None,
) -> None:
    """Hand out every line the hub has co-signed of a site, for `cloister audit verify --witness`.

    Lines that come from here have not been through the hospital's hands, which may have left out the ones that speak
    against it.
    """
    if out is not None:
        check_new(out)
    with opened(config) as hub:
        site = one_of(site, (row["site"] for row in hub.nodes()), "site")
        lines = b"".join(hub.witness.export(site))
    if out is None:
        sys.stdout.write(lines.decode("utf-8"))
        return
    write_new(out, lines)
    say(f"{out} holds {len(lines.splitlines())} checkpoints of {site}")
