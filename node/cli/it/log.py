"""`cloister node audit` and `cloister node clock`: the log of a running node, and the clock that it is written by."""

from __future__ import annotations

from typing import Annotated

import typer

from mediator.errors import IntegrityBroken, NotNow
from node.cli.admin import client_for, reach
from node.cli.options import Json, NodeConfig, SignWith
from node.cli.output import say, show
from node.ipc import audit as words
from node.ipc.messages import Empty
from node.ipc.node import AUDIT_CHECKPOINT

audit = typer.Typer(no_args_is_help=True)
clock = typer.Typer(no_args_is_help=True)


@clock.callback()
def _group() -> None:
    """The clock that records are written by."""


@audit.command("checkpoint")
def checkpoint(config: NodeConfig) -> None:
    """Sign the log as it stands now and ask the hub to witness it."""
    with client_for(reach(config), AUDIT_CHECKPOINT) as client:
        client.call(AUDIT_CHECKPOINT, Empty(), timeout_s=30.0)
    say("checkpoint signed")


@audit.command("state")
def state(config: NodeConfig, as_json: Json = False) -> None:
    """The log as a whole: its epoch, whether it was set back, whether the hub witnesses it, whether the clock is right.

    Exit code 4 when the log was set back or the hub refuses it, 5 while the clock is not believed.
    """
    with client_for(reach(config), words.LOG_STATE) as client:
        found = client.call(words.LOG_STATE, Empty())
    show(found, as_json=as_json)
    if found.set_back is not None:
        raise IntegrityBroken(
            "the audit log was set back: its node serves nothing until a new epoch is opened",
            hint="was the database restored from a backup? see deploy/docs/operate.md, *A log that was set back*",
        )
    if found.refused:
        raise IntegrityBroken(
            "the hub does not witness this log: it does not go on where the hub saw it last",
            hint="see deploy/docs/operate.md, *A log that was set back*",
        )
    if found.clock != "right":
        raise NotNow("the clock is not believed", hint="see deploy/docs/operate.md, *A clock that is wrong*")


@audit.command("open-epoch")
def open_epoch(
    config: NodeConfig,
    restored: Annotated[
        bool, typer.Option("--restored", help="the database was restored, though neither hub nor files show it")
    ] = False,
    key: SignWith = None,
) -> None:
    """Begin a new epoch of a log that was set back, while the hub is connected.

    Every run ends, instructions from before are refused, and every permit has to be accepted anew.
    """
    with client_for(reach(config), words.EPOCH_OPEN, key=key) as client:
        opened = client.call(words.EPOCH_OPEN, words.OpenEpoch(restored), timeout_s=60.0)
    say(f"epoch {opened.epoch} is open: of {opened.before} records witnessed before, the first {opened.kept} are kept")
    say("every permit has to be accepted anew")


@clock.command("accept")
def accept(
    config: NodeConfig,
    despite_hub: Annotated[
        bool, typer.Option("--despite-hub", help="the hub says another time, and the hub is wrong")
    ] = False,
    key: SignWith = None,
) -> None:
    """Say that this machine's clock is right as it stands: the node writes records by it again, from now on.

    Also where a record of a wrong time in the future keeps every permit from being live.
    """
    with client_for(reach(config), words.CLOCK_ACCEPT, key=key) as client:
        client.call(words.CLOCK_ACCEPT, words.AcceptClock(despite_hub), timeout_s=30.0)
    say("the clock is accepted as it stands")
