"""The broker process: the container engine behind five verbs."""

from __future__ import annotations

import logging
import os
import signal
import threading
from datetime import UTC, datetime

from containers.broker import Broker
from containers.engine import ContainerEngine
from containers.sandbox import SandboxPolicy
from mediator.errors import CloisterError
from mediator.signatures import KeyRing
from node.broker.handlers import HANDLERS
from node.host.config import NodeConfig
from node.host.keys import read_verify_key
from node.host.notify import Notifier
from node.ipc import broker as words
from node.ipc.caller import Caller
from node.ipc.server import Server
from node.ipc.verb import verbs_in

log = logging.getLogger(__name__)

_WALL_TIME_CHECK_S = 1.0


def run(config: NodeConfig) -> None:
    """Serve until SIGTERM. Containers outlive the broker: the next one finds them in the engine."""
    os.umask(0o002)  # the folders of a container are core's to fill, by their group (`containers.rooms`)
    ended, notifier = threading.Event(), Notifier.from_environment()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    broker = make_broker(config)
    group = config.users.accounts()["core"].gid if config.users.separate else None
    core = Caller("core", person="")
    with Server(config.paths.broker_socket, verbs_in(words), HANDLERS.of(broker), caller=core, group=group):
        notifier.ready()
        while not ended.wait(_WALL_TIME_CHECK_S):
            notifier.alive()
            try:
                broker.enforce_wall_time()
            except CloisterError as error:
                log.warning("wall time not checked: %s", error.message)


def engine_site(config: NodeConfig) -> str:
    """Whose containers are this node's: a trial node of the same name may share the engine, and containers belong to
    the node whose core signed for them."""
    return f"{config.site}.{read_verify_key(config.paths.verdict_public_key).key_id[:8]}"


def make_broker(config: NodeConfig) -> Broker:
    """The broker of this node, on its engine, trusting its core's verdicts alone."""
    verdicts = read_verify_key(config.paths.verdict_public_key)
    site = SandboxPolicy(
        site=engine_site(config),
        sentinel=config.engine.sentinel,
        ceiling=config.ceiling,
        work_root=config.paths.work,
        probe_root=config.paths.probe,
        uid=config.users.job_uid,
        gid=config.users.job_gid,
        group_outside=config.job_group,
        runtime=config.engine.runtime or "",
    )
    return Broker(ContainerEngine(config.engine.socket), site, KeyRing([verdicts]), lambda: datetime.now(UTC), _record)


def _record(verb: str, job: str, code: str) -> None:
    level = logging.INFO if code == "done" else logging.WARNING
    log.log(level, "%s %s: %s", verb, job or "-", code)
