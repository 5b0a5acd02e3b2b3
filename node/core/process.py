"""The core process: core, and the three kinds of sockets that it is asked on."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path

from mediator.errors import CloisterError, IntegrityBroken
from mediator.ports import Runner
from node.core import staff
from node.core.core import CoreProcess
from node.core.imports import intake_handlers as intake
from node.core.tasks import link_handlers as link
from node.host.config import NodeConfig
from node.host.notify import Notifier
from node.host.processes import STATE_CHANGED
from node.ipc import intake as intake_words
from node.ipc import link as link_words
from node.ipc.caller import Caller
from node.ipc.channel import Client
from node.ipc.runner import RemoteRunner
from node.ipc.server import Server
from node.ipc.verb import verbs_in

log = logging.getLogger(__name__)


def run(config: NodeConfig) -> None:
    """Serve until SIGTERM; or until STATE_CHANGED, and then raise `IntegrityBroken`, so that nobody starts it again."""
    paths, notifier = config.paths, Notifier.from_environment()
    ended, changed = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    signal.signal(STATE_CHANGED, lambda *_: _end_as(changed, ended))
    runner = RemoteRunner(Client(paths.broker_socket))
    end_what_ran(runner)
    process = CoreProcess(config, runner)
    process.start()
    groups = {role: account.gid if config.users.separate else None for role, account in config.users.accounts().items()}
    servers = [
        link_server(paths.link_socket, process, group=groups["link"]),
        Server(
            paths.intake_socket,
            verbs_in(intake_words),
            intake.HANDLERS.of(process.imports),
            caller=Caller("intake", person=""),
            group=groups["intake"],
        ),
        *staff.servers(config, process),
    ]
    try:
        for server in servers:
            server.start()
        notifier.ready()
        while not ended.wait(notifier.every_s):
            if process.watches:  # a watch that hangs would end no container any more, whatever is revoked
                notifier.alive()
        notifier.stopping()
    finally:
        process.halt()
        for server in servers:
            server.stop()
        process.stop(changed=changed.is_set())
    if changed.is_set():
        raise IntegrityBroken("the state folder has changed under the running node", hint="see who changed it")


def _end_as(*why: threading.Event) -> None:
    for each in why:
        each.set()


def link_server(socket: Path, core: link.CoreSide, *, group: int | None) -> Server:
    """What the link asks, and nobody else may."""
    words = verbs_in(link_words)
    return Server(socket, words, link.HANDLERS.of(core), caller=Caller("link", person=""), group=group)


def end_what_ran(runner: Runner) -> None:
    """End what an earlier core left running, before a database or a disk is needed that may keep this one from
    starting. Whoever is away now is asked again by the sweep at the start."""
    try:
        runner.clean(())
    except CloisterError as error:
        log.warning("left-over containers are not ended yet: %s", error.message)
