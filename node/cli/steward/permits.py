"""`cloister node permit`: see what was granted, accept it for this hospital."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from mediator.errors import Denied, Reason
from mediator.permit import compile_permit, open_acceptance, open_permit
from mediator.signatures import KeyRing
from mediator.types import Acceptance, DataPermit
from node.cli.admin import client_for, known, load, reach
from node.cli.documents import made
from node.cli.id_prefix import complete
from node.cli.options import Json, Key, NodeConfig
from node.cli.output import say, show, table
from node.host.keys import read_signing_key
from node.ipc import documents as permit_words
from node.ipc.messages import Empty, SignedText

if TYPE_CHECKING:
    from node.ipc.channel import Client

permits = typer.Typer(no_args_is_help=True)


@permits.command("list")
def list_permits(config: NodeConfig, as_json: Json = False) -> None:
    """Permits this node holds, and whether the hospital has accepted them."""
    with client_for(reach(config), permit_words.PERMITS) as client:
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
