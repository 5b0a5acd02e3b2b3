"""`cloister node dataset imports`, `follow`, `stop`, `retry`, `give-up`: imports under way, and what waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.admin import client_for, reach
from node.cli.follow_import import follow, tell_end
from node.cli.id_prefix import complete
from node.cli.options import Json, NodeConfig, SignWith
from node.cli.output import say, show, table
from node.cli.steward import data
from node.ipc import imports
from node.ipc.messages import Empty

if TYPE_CHECKING:
    from node.ipc.channel import Client

app = data.datasets
Import = Annotated[str, typer.Argument(metavar="IMPORT", help="the import (ingest-…), or the beginning of it")]


@app.command("imports")
def list_imports(config: NodeConfig, as_json: Json = False) -> None:
    """Imports, oldest first: how far each is, and what waits."""
    with client_for(reach(config), imports.IMPORTS) as client:
        items = client.call(imports.IMPORTS, Empty())
    columns = ("import", "state", "dataset", "project", "ordered", "studies", "done", "waiting", "version")
    rows = (
        (
            item.order, item.state, item.dataset, item.project, item.created.date(), item.studies, item.studies_done,
            item.studies_waiting, item.dataset_version or item.error,
        )
        for item in items
    )  # fmt: skip
    show(list(items), as_json=as_json, table=table(columns, rows))


@app.command("follow")
def follow_import(config: NodeConfig, order: Import, key: SignWith = None, as_json: Json = False) -> None:
    """Follow an import to its end, as the order itself would."""
    with client_for(reach(config), imports.IMPORT_FOLLOW, key=key) as client:
        name = _named(client, order, acts=False)
        told = follow(client.stream(imports.IMPORT_FOLLOW, imports.ImportId(name)))
    tell_end(told, as_json=as_json)


@app.command("stop")
def stop_import(config: NodeConfig, order: Import, key: SignWith = None) -> None:
    """End an import: what was taken in is destroyed, nothing is published."""
    with client_for(reach(config), imports.IMPORT_STOP, key=key) as client:
        name = _named(client, order)
        client.call(imports.IMPORT_STOP, imports.ImportId(name))
    say(f"stopping {name}: what was taken in is being destroyed")


@app.command("retry")
def retry_import(config: NodeConfig, order: Import, key: SignWith = None) -> None:
    """Try the studies again that met a defect of this software."""
    with client_for(reach(config), imports.IMPORT_RETRY, key=key) as client:
        name = _named(client, order)
        client.call(imports.IMPORT_RETRY, imports.ImportId(name))
    say(f"trying again what waits of {name}")


@app.command("give-up")
def give_up_import(config: NodeConfig, order: Import, key: SignWith = None) -> None:
    """Destroy the studies that wait, and publish the others."""
    with client_for(reach(config), imports.IMPORT_GIVE_UP, key=key) as client:
        name = _named(client, order)
        client.call(imports.IMPORT_GIVE_UP, imports.ImportId(name))
    say(f"giving up what waits of {name}: its originals are being destroyed, the other studies are published")


def _named(client: Client, order: str, *, acts: bool = True) -> str:
    known = (item.order for item in client.call(imports.IMPORTS, Empty()))
    return complete(order, known, "import", acts=acts)
