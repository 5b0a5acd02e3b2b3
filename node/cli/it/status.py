"""`cloister node status`, `canary`, `self-test`, `ledger`: how the node stands."""

from __future__ import annotations

import typer

from mediator.errors import Code, Denied, NotNow, Reason
from node.cli.admin import client_for, reach
from node.cli.options import Json, NodeConfig
from node.cli.output import plain, say, show, table
from node.ipc import node as words
from node.ipc.jobs import RUNS
from node.ipc.messages import Empty

runs = typer.Typer(no_args_is_help=True)


@runs.callback()
def _group() -> None:
    """Runs that asked this hospital, and what they were charged."""


def status(config: NodeConfig, as_json: Json = False) -> None:
    """The node in one look: paused or not, what waits, how far the log is witnessed."""
    node = reach(config)
    with client_for(node, words.STATUS) as client:
        answer = plain(client.call(words.STATUS, Empty()))
    hub = {"url": node.hub_url, "connected": answer.pop("hub_connected"), "trouble": answer.pop("hub_trouble")}
    answer["hub"] = hub | {"clock_ahead_s": answer.pop("hub_clock_ahead_s")}
    show(answer, as_json=as_json)
    if trouble := answer["hub"]["trouble"]:
        from federation.client.standing import WORDS

        said = WORDS[trouble]
        say(f"{said.meaning}: {said.mend}")


def canary(config: NodeConfig, as_json: Json = False) -> None:
    """Attack our own sandbox now: a container of the very same making tries to get out, and tells."""
    with client_for(reach(config), words.CANARY) as client:
        answer = client.call(words.CANARY, Empty(), timeout_s=300.0)
    show(answer, as_json=as_json)
    if answer.failures:
        raise Denied(Reason(Code.CANARY_FAILED, ", ".join(answer.failures)), hint="no job runs until a canary passes")
    say("the sandbox held")


def self_test(config: NodeConfig, as_json: Json = False) -> None:
    """Run a small job of nobody's now, with data made up for it: from its spec to its output, as any job."""
    with client_for(reach(config), words.SELF_TEST) as client:
        answer = client.call(words.SELF_TEST, Empty(), timeout_s=300.0)
    show(answer, as_json=as_json)
    if answer.failure:
        raise NotNow(f"the job did not end as it must: {answer.failure}", hint="cloister check")
    say(f"a job was run, in {answer.seconds:.1f} s")


@runs.command("list")
def list_runs(config: NodeConfig, as_json: Json = False) -> None:
    """Runs at this node: rounds and bytes charged, what left, epsilon spent."""
    with client_for(reach(config), RUNS) as client:
        items = client.call(RUNS, Empty())
    columns = ("run", "permit", "rounds", "charged", "releases", "bytes out", "epsilon", "state")
    rows = (
        (r.run, r.permit, r.rounds, r.rounds_charged, r.releases, r.bytes_released, r.epsilon, r.state) for r in items
    )
    show(list(items), as_json=as_json, table=table(columns, rows))
