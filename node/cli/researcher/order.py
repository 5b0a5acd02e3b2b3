"""`cloister job order`: a run order, signed on a researcher's own machine."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from mediator.analysis import LOCAL
from mediator.canonical import print_time
from mediator.errors import Denied, UsageFault
from mediator.permit import schema_sha256
from mediator.terms import unorderable
from mediator.types import DataPermit, RunOrder
from node.cli.documents import made, unverified
from node.cli.files import read_text, write_new
from node.cli.id_prefix import complete
from node.cli.options import Key, Out
from node.cli.output import say
from node.host.keys import read_signing_key


def order(
    permit: Annotated[Path, typer.Option(help="the signed permit the run stands on")],
    run: Annotated[str, typer.Option(help="a name for the run, new to every site")],
    image: Annotated[str, typer.Option(help="the container image, by a digest the permit names (sha256:…)")],
    site: Annotated[list[str], typer.Option(help="a site that takes part (repeat)")],
    rounds: Annotated[int, typer.Option(help="federated rounds", min=1)],
    key: Key,
    out: Out,
    config: Annotated[str, typer.Option(help="the configuration of every task, as a JSON object")] = "{}",
    strategy: Annotated[
        str, typer.Option(help=f"how the hub aggregates; {LOCAL}: an analysis at one site, without a hub")
    ] = "fedavg",
    hours: Annotated[float, typer.Option(help="how long the order holds", min=0.1, max=24 * 90)] = 24.0,
) -> None:
    """Sign a run order. It is checked against the permit first, so that neither hub nor site has to refuse it.

    It ends with the permit, where that comes first. IMAGE may be the beginning of a digest that the permit names.
    """
    # that it is genuine is for the sites to check, who hold the committee's key
    granted, settings, now = unverified(DataPermit, read_text(permit)), _object(config), datetime.now(UTC)
    signer, there = read_signing_key(key), sorted({entry.site for entry in granted.datasets})
    document = made(
        RunOrder,
        run=run,
        permit=granted.permit,
        permit_version=granted.permit_version,
        image=complete(image, granted.images, "image"),
        sites=tuple(complete(each, there, "site") for each in site),
        schema_sha256=schema_sha256(granted.tensors),
        config=settings,
        strategy=strategy,
        rounds=rounds,
        nonce=secrets.token_hex(16),
        expires=min(now.replace(microsecond=0) + timedelta(hours=hours), granted.expires),
    )
    if reasons := unorderable(document, granted, signer.key_id, now):
        sites = f"sites it covers: {', '.join(there)}; " if set(document.sites) - set(there) else ""
        raise Denied(reasons, hint=f"{sites}see what it grants: cloister permit show {permit}")
    write_new(out, signer.sign(document))
    until = print_time(document.expires)
    say(f"signed run order {run}: {rounds} rounds at {', '.join(document.sites)}, until {until}: {out}")


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageFault("--config is not JSON") from error
    if not isinstance(value, dict):
        raise UsageFault("--config is not a JSON object")
    return value
