"""`cloister node`: what hospital IT and the data steward do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from mediator.errors import Code, Denied, NotNow, Reason
from mediator.permit import compile_permit, open_acceptance, open_permit
from mediator.signatures import KeyRing
from mediator.types import Acceptance, DataPermit
from node.cli.admin import client_for, known, load
from node.cli.documents import made
from node.cli.id_prefix import complete
from node.cli.it import enrol as node_enrol
from node.cli.it import images as node_images
from node.cli.it import jobs as node_jobs
from node.cli.it import log as node_log
from node.cli.it import pause as node_pause
from node.cli.it import set_aside as node_set_aside
from node.cli.it import units as node_units
from node.cli.options import Json, Key, NodeConfig
from node.cli.output import plain, say, show, table
from node.cli.steward import airlock as node_airlock
from node.cli.steward import data as node_data
from node.cli.steward import imports as node_imports
from node.host.keys import read_signing_key
from node.ipc import documents as permit_words
from node.ipc import node as words
from node.ipc.jobs import RUNS
from node.ipc.messages import Empty, SignedText

if TYPE_CHECKING:
    from node.ipc.channel import Client

app = typer.Typer(no_args_is_help=True)
permits = typer.Typer(no_args_is_help=True)
runs = typer.Typer(no_args_is_help=True)
app.add_typer(node_enrol.app, name="enrol", help="Enrol at a hub: six words by telephone, or two files.")
app.add_typer(node_imports.app, name="dataset", help="Published dataset versions, and imports on their way.")
app.add_typer(permits, name="permit", help="Permits: see what was granted, accept it for this hospital.")
app.add_typer(runs, name="run", help="Runs that asked this hospital, and what they were charged.")
app.add_typer(node_jobs.app, name="job", help="Tasks given to containers.")
app.add_typer(node_images.app, name="image", help="Container images this hospital lets run.")
app.add_typer(node_airlock.analysis, name="analysis", help="Analyses that run at this hospital alone.")
app.add_typer(node_airlock.airlock, name="airlock", help="Files of analyses: see them, review them, hand them out.")
app.add_typer(node_log.audit, name="audit", help="The audit log of a running node.")
app.add_typer(node_log.clock, name="clock", help="The clock that the audit log is written by.")
app.command("ingest")(node_data.ingest)
app.command("import")(node_data.import_document)
app.command("pause")(node_pause.pause)
app.command("resume")(node_pause.resume)
app.command("set-aside")(node_set_aside.set_aside)


@app.command("init")
def init(config: NodeConfig) -> None:
    """Make the state folder, its owners and modes, and the node's keys. Safe to repeat: what is there is kept."""
    from node.cli.it.enrol import write_audit_keys
    from node.host.migrate_state import is_old
    from node.host.placeholders import check_filled_in
    from node.host.state import migrate_state, prepare_state
    from node.host.supervisor import only_one

    loaded = load(config)
    check_filled_in(loaded)
    if is_old(loaded):
        with only_one(loaded):
            migrate_state(loaded)
    prepare_state(loaded)
    write_audit_keys(loaded)
    say(f"the node's state is in {loaded.state_dir}")


@app.command("serve")
def serve(config: NodeConfig) -> None:
    """Run the node until SIGTERM: core, broker, intake and link, each its own process (as root: its own user)."""
    from node.host.logs import set_up
    from node.host.supervisor import Supervisor

    loaded = load(config)
    set_up("supervisor", level=loaded.logging.level, form=loaded.logging.format)
    Supervisor(loaded, config).run()


@app.command("guard", hidden=True)
def guard(config: NodeConfig) -> None:
    """Guard the state folder of a node that runs as services; their business."""
    from node.host.guard import guard as run_guard
    from node.host.logs import set_up
    from node.host.notify import Notifier

    loaded = load(config)
    set_up("guard", level=loaded.logging.level, form=loaded.logging.format)
    run_guard(loaded, Notifier.from_environment())


@app.command("process", hidden=True)
def process(role: Annotated[str, typer.Argument(help="which of the node's processes")], config: NodeConfig) -> None:
    """Run one of the node's processes; the supervisor's business."""
    from node.host.start import start

    start(role, load(config))


@app.command("status")
def status(config: NodeConfig, as_json: Json = False) -> None:
    """The node in one look: paused or not, what waits, how far the log is witnessed."""
    loaded = load(config)
    with client_for(loaded, words.STATUS) as client:
        answer = plain(client.call(words.STATUS, Empty()))
    hub = {"url": loaded.hub.url, "connected": answer.pop("hub_connected"), "trouble": answer.pop("hub_trouble")}
    answer["hub"] = hub | {"clock_ahead_s": answer.pop("hub_clock_ahead_s")}
    show(answer, as_json=as_json)
    if trouble := answer["hub"]["trouble"]:
        from federation.client.standing import WORDS

        said = WORDS[trouble]
        say(f"{said.meaning}: {said.mend}")


@app.command("canary")
def canary(config: NodeConfig, as_json: Json = False) -> None:
    """Attack our own sandbox now: a container of the very same making tries to get out, and tells."""
    with client_for(load(config), words.CANARY) as client:
        answer = client.call(words.CANARY, Empty(), timeout_s=300.0)
    show(answer, as_json=as_json)
    if answer.failures:
        raise Denied(Reason(Code.CANARY_FAILED, ", ".join(answer.failures)), hint="no job runs until a canary passes")
    say("the sandbox held")


@app.command("self-test")
def self_test(config: NodeConfig, as_json: Json = False) -> None:
    """Run a small job of nobody's now, with data made up for it: from its spec to its output, as any job."""
    with client_for(load(config), words.SELF_TEST) as client:
        answer = client.call(words.SELF_TEST, Empty(), timeout_s=300.0)
    show(answer, as_json=as_json)
    if answer.failure:
        raise NotNow(f"the job did not end as it must: {answer.failure}", hint="cloister check")
    say(f"a job was run, in {answer.seconds:.1f} s")


@permits.command("list")
def list_permits(config: NodeConfig, as_json: Json = False) -> None:
    """Permits this node holds, and whether the hospital has accepted them."""
    with client_for(load(config), permit_words.PERMITS) as client:
        items = client.call(permit_words.PERMITS, Empty())
    rows = ((p.permit, p.permit_version, p.project, p.expires.date(), p.accepted, p.revoked) for p in items)
    columns = ("permit", "version", "project", "expires", "accepted", "revoked")
    show(list(items), as_json=as_json, table=table(columns, rows))


@permits.command("show")
def show_permit(
    config: NodeConfig,
    permit: Annotated[str, typer.Argument(help="the permit, or the beginning of its name")],
    version: Annotated[int, typer.Argument(help="its version")],
) -> None:
    """Print a permit in full, as JSON: read it before you accept it."""
    loaded = load(config)
    with client_for(loaded, permit_words.PERMIT_TEXT) as client:
        permit = _whole(client, permit)
        answer = client.call(permit_words.PERMIT_TEXT, permit_words.PermitId(permit=permit, permit_version=version))
    show(open_permit(answer.text, loaded.trust.ring("committee")).document, as_json=True)


def _whole(client: Client, permit: str, *, acts: bool = False) -> str:
    return complete(permit, (line.permit for line in client.call(permit_words.PERMITS, Empty())), "permit", acts=acts)


@permits.command("accept")
def accept(
    config: NodeConfig,
    permit: Annotated[str, typer.Argument(help="the permit, or the beginning of its name")],
    version: Annotated[int, typer.Argument(help="its version")],
    key: Key,
    days: Annotated[float | None, typer.Option(help="accept for so many days only", min=0.01)] = None,
    maximum_rounds: Annotated[int | None, typer.Option(help="accept fewer rounds than granted", min=1)] = None,
    byte_budget: Annotated[int | None, typer.Option(help="accept fewer bytes than granted", min=1)] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="accept for these dataset versions only (repeat)")] = None,
    unprotected: Annotated[
        bool, typer.Option("--unprotected", help="exact values may leave, though another permit has a privacy budget")
    ] = False,
) -> None:
    """Say yes for this hospital to exactly this version of a permit, signed with the steward's key. May only narrow."""
    loaded = load(config)
    with client_for(loaded, permit_words.PERMIT_TEXT) as client:
        permit = _whole(client, permit, acts=True)
        text = client.call(permit_words.PERMIT_TEXT, permit_words.PermitId(permit=permit, permit_version=version)).text
    signed = open_permit(text, loaded.trust.ring("committee"))
    steward = read_signing_key(key)
    _tell_not_wider(signed.document, maximum_rounds, byte_budget)
    expires = signed.document.expires
    if days is not None:
        expires = min(expires, datetime.now(UTC).replace(microsecond=0) + timedelta(days=days))
    granted = signed.document.versions_of(loaded.site)
    acceptance = made(
        Acceptance,
        site=loaded.site,
        permit=permit,
        permit_version=version,
        permit_sha256=signed.sha256,
        expires=expires,
        maximum_rounds=maximum_rounds,
        byte_budget=byte_budget,
        versions=tuple(complete(each, granted, "dataset version", acts=True) for each in dataset) if dataset else None,
        unprotected=unprotected,
    )
    text = steward.sign(acceptance)
    compile_permit(
        signed, open_acceptance(text, KeyRing([steward.verify_key]))
    )  # every reason, before anything is sent
    with client_for(loaded, permit_words.PERMIT_ACCEPT, key=known(loaded, key)) as client:
        answer = client.call(permit_words.PERMIT_ACCEPT, SignedText(text))
    if answer.code is not None:
        raise Denied(Reason(answer.code, "the node refused the acceptance"))
    say(f"accepted permit {permit} version {version} until {expires.date()}")


def _tell_not_wider(permit: DataPermit, rounds: int | None, size_bytes: int | None) -> None:
    for what, granted, asked in (("rounds", permit.maximum_rounds, rounds), ("bytes", permit.byte_budget, size_bytes)):
        if asked is not None and asked > granted:
            say(f"the permit grants {granted} {what}: an acceptance of {asked} gives no more")


@app.command("ledger")
@runs.command("list")
def list_runs(config: NodeConfig, as_json: Json = False) -> None:
    """Runs at this node: rounds and bytes charged, what left, epsilon spent."""
    with client_for(load(config), RUNS) as client:
        items = client.call(RUNS, Empty())
    columns = ("run", "permit", "rounds", "charged", "releases", "bytes out", "epsilon", "state")
    rows = (
        (r.run, r.permit, r.rounds, r.rounds_charged, r.releases, r.bytes_released, r.epsilon, r.state) for r in items
    )
    show(list(items), as_json=as_json, table=table(columns, rows))


app.command("units")(node_units.node_units)
