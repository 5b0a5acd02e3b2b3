"""Core's sockets for hospital staff: one for each role, each answering the verbs that role may ask."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Literal

from mediator.roles import PERMISSIONS, Role
from node.core.airlock import handlers as airlock
from node.core.airlock.airlock import waits
from node.core.audit import handlers as audit
from node.core.core import CoreProcess
from node.core.datasets import handlers as datasets
from node.core.documents import handlers as documents
from node.core.images import handlers as images
from node.core.imports import handlers as imports
from node.core.site_keys import handlers as site_keys
from node.core.store.reads import Reads
from node.core.tasks import handlers as tasks
from node.core.tasks import pause, watch
from node.host.config import NodeConfig
from node.ipc import node as words
from node.ipc.caller import Caller
from node.ipc.messages import Empty, SignedText
from node.ipc.persons import signers
from node.ipc.server import Server
from node.ipc.staff import STAFF
from node.ipc.verb import Handler, Handlers, Verb

# a checkpoint is asked for by people: long enough for a hub across the country to answer
_WITNESS_WAIT_S = 10.0

SUBJECTS = (airlock, audit, datasets, documents, images, imports, site_keys, tasks)
# what is asked of the node as a whole; every subject has its own
HANDLERS = Handlers[CoreProcess]()


def servers(config: NodeConfig, process: CoreProcess) -> list[Server]:
    """A server for each role; who may open its socket is the role's group, or root and core's user alone."""
    groups = config.staff.groups()
    return [
        Server(
            config.paths.staff_socket(role.value),
            STAFF,
            handlers(process),
            caller=Caller(role.value),
            permissions=PERMISSIONS,
            signers=signers(config),
            group=groups[role.value],
        )
        for role in Role
    ]


def handlers(process: CoreProcess) -> Mapping[Verb[Any, Any], Handler]:
    """The staff's verbs, subject by subject."""
    return {
        verb: handler
        for table in (HANDLERS, *(subject.HANDLERS for subject in SUBJECTS))
        for verb, handler in table.of(process).items()
    }


@HANDLERS.answers(words.STATUS)
def status(process: CoreProcess, _caller: Caller, _request: Empty) -> words.Status:
    core = process.core
    with core.store.read() as snapshot:
        newest = snapshot.newest_checkpoint()
        listed, canary = core.revocations(snapshot), snapshot.newest_canary_of_all()
        waiting, late = waits(core, snapshot)
        return words.Status(
            site=core.site,
            cloister=version("cloister"),
            config=process.config.fingerprint,
            started=process.started,
            paused=core.paused(snapshot),
            containers=len(process.sandboxes.running()),
            jobs_unfinished=len(snapshot.unfinished()),
            datasets=sum(1 for row in snapshot.dataset_versions() if row.withdrawn is None),
            permits=len(snapshot.permits()),
            undelivered=len(snapshot.outgoing()),
            revocation_number=None if listed is None else listed.number,
            revocation_age_s=None if listed is None else (core.clock() - listed.issued).total_seconds(),
            hub_connected=process.hub_connected,
            hub_trouble=process.hub_trouble,
            hub_clock_ahead_s=process.clock.hub_ahead_s(),
            audit_records=snapshot.audit_size(),
            audit_checkpointed=0 if newest is None else newest.size,
            audit_witnessed=snapshot.witnessed_size(),
            audit_trouble=_trouble(process, snapshot),
            airlock_waiting=waiting,
            airlock_overdue=late,
            unrecorded=core.deferred.count(),
            set_aside=snapshot.count_set_aside(),
            sandbox="unknown" if canary is None else ("held" if canary.passed else "failed"),
            sandbox_age_s=None if canary is None else (core.clock() - canary.time).total_seconds(),
        )


def _trouble(process: CoreProcess, snapshot: Reads) -> Literal["", "set_back", "not_witnessed", "clock"]:
    if snapshot.set_back() is not None:
        return "set_back"
    if process.clock.state() != "right":
        return "clock"
    return "not_witnessed" if process.witness.refused else ""


@HANDLERS.answers(words.PAUSE)
def do_pause(process: CoreProcess, caller: Caller, _request: Empty) -> words.PauseResult:
    return pause.pause(process.core, process.sandboxes, caller.actor)


@HANDLERS.answers(words.RESUME)
def do_resume(process: CoreProcess, caller: Caller, _request: Empty) -> Empty:
    pause.resume(process.core, caller.actor)
    return Empty()


@HANDLERS.answers(words.CANARY)
def canary(process: CoreProcess, caller: Caller, _request: Empty) -> words.CanaryAnswer:
    fingerprint, failures = process.trust.probe_now(process.core.ceiling, caller.actor)
    return words.CanaryAnswer(fingerprint, failures)


@HANDLERS.answers(words.SELF_TEST)
def self_test(process: CoreProcess, caller: Caller, _request: Empty) -> words.SelfTestAnswer:
    found = process.self_test.run(caller.actor)
    failure = "" if found.reason is None else str(found.reason)
    return words.SelfTestAnswer(found.fingerprint, round(found.seconds, 1), failure)


@HANDLERS.answers(words.AUDIT_CHECKPOINT)
def checkpoint(process: CoreProcess, caller: Caller, _request: Empty) -> SignedText:
    """Sign now, and wait a while for the hub's signature; without a hub the checkpoint stands alone."""
    text = watch.checkpoint(process.core, caller.actor)
    with process.core.store.read() as snapshot:
        newest = snapshot.newest_checkpoint()
    deadline = time.monotonic() + _WITNESS_WAIT_S
    while newest is not None and time.monotonic() < deadline:
        with process.core.store.read() as snapshot:
            if snapshot.witnessed_size() >= newest.size or process.witness.refused:
                break
        time.sleep(0.05)
    process.export()
    return SignedText(text)
