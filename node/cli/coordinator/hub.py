"""`cloister hub`: what the hub's coordinator does."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mediator.errors import Denied, NotNow
from mediator.signatures import VerifyKey
from node.cli.coordinator import approve, witness
from node.cli.coordinator import check as hub_check
from node.cli.coordinator.desk import looked, opened, refuse_root
from node.cli.files import (
    check_new_folder,
    read_bytes,
    read_text,
    write_folder,
)
from node.cli.id_prefix import one_of
from node.cli.it.units import hub_units
from node.cli.options import HubConfigPath, Json
from node.cli.output import say, show, table

if TYPE_CHECKING:
    from federation.hub.overview import Overview

app = typer.Typer(no_args_is_help=True)
nodes = typer.Typer(no_args_is_help=True)
nodes.command("approve")(approve.approve)
permits = typer.Typer(no_args_is_help=True)
revocations = typer.Typer(no_args_is_help=True)
runs = typer.Typer(no_args_is_help=True)
app.add_typer(nodes, name="node", help="Enrol and revoke sites.")
app.add_typer(permits, name="permit", help="Publish permits.")
app.add_typer(revocations, name="revocations", help="Publish revocation lists.")
app.add_typer(runs, name="run", help="Submit and follow runs.")
app.add_typer(witness.app, name="witness", help="What the hub has co-signed of the sites' audit logs.")

app.command("units")(hub_units)

Run = Annotated[str, typer.Argument(help="the run, or the beginning of its name")]

_ENDED = ("done", "stopped")
_FOLLOW_S = 0.25


@app.command("init")
def init(config: HubConfigPath) -> None:
    """Make the hub's state folder, its certificate authority and its signing keys. Once."""
    from federation.hub.config import load_config
    from federation.hub.state import HubState

    hub = HubState.create(load_config(config))
    say(f"the hub's state is in {hub.config.state_dir}")
    _say_key("instruction key (nodes: [trust] hub)", hub.instruction_key.verify_key)
    _say_key("witness key (nodes: [trust] witnesses)", hub.witness_key.verify_key)
    hub.close()


@app.command("serve")
def serve(config: HubConfigPath) -> None:
    """Run the hub until SIGTERM: Flower's SuperLink on a socket of its own, the mutual-TLS port, the runs."""
    import asyncio

    from federation.hub.service import serve_hub
    from node.host.logs import set_up
    from node.host.notify import Notifier

    refuse_root(config)
    set_up("hub", level="info", form="text")
    notifier = Notifier.from_environment()
    with opened(config) as hub:

        def ready() -> None:
            say(f"ready at {hub.config.ingress.url}")
            notifier.ready()

        asyncio.run(serve_hub(hub, ready, notifier.alive))


@app.command("status")
def status(config: HubConfigPath, as_json: Json = False) -> None:
    """Alarms: sites whose certificate may be in other hands, since each was enrolled. Exit code 3 while there is one.

    Telephone the site; if it did not do it, revoke it and enrol it anew with new keys.
    """
    with looked(config) as hub:
        rows = hub.alarms()
    if rows or as_json:
        _show_rows(rows, as_json)
    if not rows:
        say("no alarms")
        return
    raise typer.Exit(Denied.exit_code)


@app.command("keys")
def public_keys(config: HubConfigPath, as_json: Json = False) -> None:
    """The hub's two public keys, as they stand in the trust section of a node's configuration."""
    with opened(config) as hub:
        keys = {"hub": hub.instruction_key.verify_key, "witnesses": hub.witness_key.verify_key}
    rows = [{"trust": name, "key": key.text, "key_id": key.key_id} for name, key in keys.items()]
    _show_rows(rows, as_json)


@app.command("events")
def events(
    config: HubConfigPath,
    newest: Annotated[int, typer.Option("--newest", help="so many of the newest lines; 0: all", min=0)] = 50,
    as_json: Json = False,
) -> None:
    """The hub's own record: who did or asked what, and what came of it, refused enrolments and alarms included."""
    with looked(config) as hub:
        rows = hub.events(newest)
    _show_rows(rows, as_json)


app.command("check")(hub_check.check)


@nodes.command("list")
def list_nodes(config: HubConfigPath, as_json: Json = False) -> None:
    """Enrolled sites, their certificates and when they were last heard of."""
    with looked(config) as hub:
        rows = hub.nodes()
    _show_rows(rows, as_json)


@nodes.command("revoke")
def revoke(
    config: HubConfigPath, site: Annotated[str, typer.Argument(help="the site, or the beginning of its name")]
) -> None:
    """End a site: its certificate is refused and its open connections are closed at once."""
    with opened(config) as hub:
        site = one_of(site, (row["site"] for row in hub.nodes()), "site", acts=True)
        hub.revoke(site)
    say(f"revoked {site}")


@permits.command("publish")
def publish_permit(config: HubConfigPath, file: Annotated[Path, typer.Argument(help="the signed permit")]) -> None:
    """Send a committee's permit to every site, now and whenever one connects."""
    text = read_text(file)
    with opened(config) as hub:
        permit = hub.submit_permit(text)
    say(f"published permit {permit.permit} version {permit.permit_version}")


@revocations.command("publish")
def publish_revocations(config: HubConfigPath, file: Annotated[Path, typer.Argument(help="the signed list")]) -> None:
    """Send a committee's revocation list to every site at once."""
    text = read_text(file)
    with opened(config) as hub:
        hub.submit_revocations(text)
    say("published the revocation list")


@revocations.command("print")
def print_revocations(config: HubConfigPath) -> None:
    """Print the newest published list as it was signed: what the committee's next list follows."""
    with opened(config) as hub:
        text = hub.documents.newest_revocations()
    if text is None:
        raise NotNow("no revocation list was published yet")
    sys.stdout.write(text + "\n")


@runs.command("submit")
def submit(
    config: HubConfigPath,
    order: Annotated[Path, typer.Option(help="the researcher's signed run order")],
    model: Annotated[Path, typer.Option(help="the untrained model (safetensors, exactly the permit's tensors)")],
) -> None:
    """Submit a run; a hub that is running begins it at once."""
    from mediator.sizes import MAX_MODEL_FILE_BYTES  # and what an image is, of which the other commands know nothing

    signed, untrained = read_text(order), read_bytes(model, limit=MAX_MODEL_FILE_BYTES)
    with opened(config) as hub:
        ordered = hub.submit_order(signed, untrained)
    say(f"submitted run {ordered.run}: {ordered.rounds} rounds at {', '.join(ordered.sites)}")


@runs.command("publish")
def publish_order(config: HubConfigPath, file: Annotated[Path, typer.Argument(help="the signed local order")]) -> None:
    """Send an order for local analyses to the sites, where hospital staff start it or do not. No run begins here."""
    text = read_text(file)
    with opened(config) as hub:
        order = hub.submit_local(text)
    say(f"published the local order {order.run} for {', '.join(order.sites)}")


@runs.command("list")
def list_runs(config: HubConfigPath, as_json: Json = False) -> None:
    """Every run, newest first."""
    with looked(config) as hub:
        rows = hub.runs()
    _show_rows(rows, as_json)


@runs.command("show")
def show_run(
    config: HubConfigPath,
    run: Run,
    follow: Annotated[bool, typer.Option("--follow", help="a line per finished round, until the run ends")] = False,
    as_json: Json = False,
) -> None:
    """A run in full: rounds, metrics of each site and their weighted mean, seconds, missing sites, refusals.

    With --follow --json: one object a line, whenever anything has changed.
    """
    with looked(config) as hub:
        run = _whole(hub, run)
        if follow and as_json:
            for history in _changes(hub, run):
                sys.stdout.write(json.dumps(history) + "\n")
                sys.stdout.flush()
            return
        history = _follow(hub, run) if follow else hub.history(run)
    if as_json:
        show(history, as_json=True)
        return
    say(f"run {run}: {history['state']} {history['detail']}".rstrip())
    show(
        history,
        as_json=False,
        table=table(("round", "seconds", "mean", "sites", "missing", "refusals"), _rounds(history)),
    )


@runs.command("export")
def export_run(
    config: HubConfigPath,
    run: Run,
    to: Annotated[Path, typer.Option(help="the folder to make; an empty one may be there")],
    round_: Annotated[
        int | None,
        typer.Option("--round", help="a finished round (0: the untrained model); the last if not given", min=0),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a run's trained model, its history (JSON, CSV), its lineage, order and permit into a new folder.

    A run that goes on is exported only by --round. The hub records who exported what.
    """
    check_new_folder(to)
    with opened(config) as hub:
        export = hub.export_run(_whole(hub.overview, run), round_)
    write_folder(to, export.files)
    with opened(config) as hub:
        hub.exported(export)
    if as_json:
        files = {name: hashlib.sha256(content).hexdigest() for name, content in export.files.items()}
        answer = {"run": export.run, "round": export.round, "model_sha256": export.model_sha256}
        show(answer | {"folder": str(to), "files": files}, as_json=True)
        return
    say(f"exported run {export.run} after round {export.round} to {to}: {', '.join(export.files)}")
    say("the permit does not speak of release: none was needed, and the hub's record says so")


@runs.command("stop")
def stop_run(config: HubConfigPath, run: Run) -> None:
    """End a run; its checkpoints stay."""
    with opened(config) as hub:
        run = _whole(hub.overview, run, acts=True)
        hub.stop_run(run)
    say(f"stopped {run}")


@runs.command("resume")
def resume_run(config: HubConfigPath, run: Run) -> None:
    """Let a stopped run go on after its last completed round."""
    with opened(config) as hub:
        run = _whole(hub.overview, run, acts=True)
        hub.resume_run(run)
    say(f"resumed {run}")


def _whole(hub: Overview, run: str, *, acts: bool = False) -> str:
    return one_of(run, (row["run"] for row in hub.runs()), "run", acts=acts)


def _follow(hub: Overview, run: str) -> dict[str, Any]:
    """A line of talk per finished round; the run's history once it has ended."""
    told, history = 0, {}
    for history in _changes(hub, run):
        finished = [row for row in history["rounds"] if row["mean"] is not None]
        for row in finished[told:]:
            mean = ", ".join(f"{name} {value:.4g}" for name, value in row["mean"].items())
            say(f"round {row['round']}: {mean} ({row['seconds']:.1f} s)")
        told = len(finished)
    return history


def _changes(hub: Overview, run: str) -> Iterator[dict[str, Any]]:
    """The run's history now, and whenever it is another than before, until the run has ended."""
    seen: dict[str, Any] = {}
    while seen.get("state") not in _ENDED:
        history = hub.history(run)
        if history == seen:
            time.sleep(_FOLLOW_S)
            continue
        seen = history
        yield history


def _rounds(history: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    for row in history["rounds"]:
        refusals = [f"{each['site']} {each['code']}" for each in row["refusals"]]
        missing = [f"{site} ({task})" for task, sites in row["missing"].items() for site in sites]
        yield row["round"], row["seconds"], row["mean"], sorted(row["evaluate"]), missing, refusals


def _show_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    columns = list(rows[0]) if rows else ["nothing yet"]
    show(rows, as_json=as_json, table=table(columns, ([row[column] for column in columns] for row in rows)))


def _say_key(what: str, key: VerifyKey) -> None:
    say(f"{what}: {key.text} (key id {key.key_id})")
