"""`cloister node set-aside`: what failed too often and is tried no more, and what there is to do about it."""

from __future__ import annotations

from node.cli.admin import client_for, reach
from node.cli.options import Json, NodeConfig
from node.cli.output import plain, show, table
from node.ipc.jobs import SET_ASIDE
from node.ipc.messages import Empty

ADVICE = {
    "message": "the hub was told and asks again, or goes on without this site: tell its operator",
    "document": "the hub sends it again at every connection; else have it as a file: cloister node import FILE",
    "release": "the hub was told that this site failed (internal): the round goes on without it",
    "refusal": "the hub waits until the task's time is over: tell its operator",
}


def set_aside(config: NodeConfig, as_json: Json = False) -> None:
    """What failed several times although hub and core answered, and is tried no more; each is in the audit log.

    A release or a refusal is named by the instruction it answers, a message or a document by its SHA-256.
    """
    with client_for(reach(config), SET_ASIDE) as client:
        items = client.call(SET_ASIDE, Empty())
    columns = ("kind", "subject", "tries", "reason", "since", "what to do")
    rows = (
        (each.kind, each.subject, each.times, each.reason, each.set_aside, ADVICE.get(each.kind, "")) for each in items
    )
    shown = [{**plain(each), "what_to_do": ADVICE.get(each.kind, "")} for each in items]
    show(shown, as_json=as_json, table=table(columns, rows))
