"""`cloister node pause` and `resume`. A core that does not answer is not waited for: its containers are ended all the
same, by a broker of this very process, for whoever may use the container engine and write the node's state."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mediator.errors import CloisterError, Denied, NotNow, UsageFault
from mediator.roles import Role, may
from node.cli.admin import client_for, load, reach
from node.cli.options import NodeConfig, SignWith
from node.cli.output import say
from node.core.switch import Switch
from node.host.accounts import acting_as
from node.ipc import node as words
from node.ipc.messages import Empty

if TYPE_CHECKING:
    from node.host.config import NodeConfig as Config

# a pause has 5 s in all, and core's own way takes half of them: SIGTERM, 2 s, SIGKILL, removal
_CORE_S = 4.0
# by then a core that was only slow has finished
_CORE_AGAIN_S = 6.0


def pause(config: NodeConfig, key: SignWith = None) -> None:
    """Stop everything within five seconds, whether hub, disk or database answer or not, until `resume`."""
    loaded = load(config)
    try:
        answer = _ask(loaded, key, _CORE_S)
    except NotNow as silent:
        answer = _without_core(loaded, key, silent)
    say(f"paused; {answer.stopped} containers ended")
    if not answer.all_ended:
        raise NotNow("a container may still be running", hint="does the engine answer? see the broker's log")
    if not answer.recorded:
        lost = "" if answer.kept else ", and a restart would forget the pause"
        raise NotNow(
            f"the pause is not written down yet{lost}",
            hint="is the disk full, or the database locked? the node stays paused and goes on trying",
        )


def resume(config: NodeConfig, key: SignWith = None) -> None:
    """Take the pause away. Nothing starts by itself: the hub asks again when it asks."""
    with client_for(reach(config), words.RESUME, key=key) as client:
        client.call(words.RESUME, Empty())
    say("resumed")


def _ask(loaded: Config, key: Path | None, within_s: float) -> words.PauseResult:
    with client_for(loaded, words.PAUSE, key=key) as client:
        return client.call(words.PAUSE, Empty(), timeout_s=within_s)


def _without_core(loaded: Config, key: Path | None, silent: NotNow) -> words.PauseResult:
    """End the containers, leave the mark, end what was begun in between; then see whether core was only slow."""
    say(f"{silent.message}: ending the containers without it")
    try:
        ended = _end_containers(loaded)
        marked = _mark(loaded)
        ended |= _end_containers(loaded)
    except CloisterError as error:  # not everybody on the staff may use the engine
        say(f"that cannot be done from here: {error.message}")
        return _ask(loaded, key, _CORE_AGAIN_S)
    try:
        answer = _ask(loaded, key, _CORE_AGAIN_S)
    except (NotNow, UsageFault, Denied):
        say(f"{len(ended)} containers ended")
        if marked:
            raise NotNow(
                "the node does not answer: it finds itself paused when it does, and writes that down then",
                hint="nothing runs; see the node's log",
            ) from None
        raise NotNow(
            "the node does not answer, and the pause could not be kept for it: it may begin again",
            hint=f"stop the node, or make room and create {loaded.paths.pause_mark}",
        ) from None
    return replace(answer, stopped=max(answer.stopped, len(ended)))


def _mark(loaded: Config) -> bool:
    """Leave the mark in core's folder, as root with core's rights: what lies there is core's choice."""
    with acting_as(loaded.users.accounts()["core"]):
        return Switch(loaded.paths.pause_mark).mark(_role())


def _end_containers(loaded: Config) -> set[str]:
    from node.broker.process import make_broker

    logging.getLogger("node.broker.process").setLevel(logging.ERROR)
    return set(make_broker(loaded).clean(()))


def _role() -> str:
    """Whose pause it is: who may write the state folder speaks for the first role that may pause."""
    return next(role.value for role in Role if may(role.value, words.PAUSE.name))
