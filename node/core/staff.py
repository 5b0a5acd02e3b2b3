"""Core's sockets for hospital staff: one for each role, each answering the verbs that role may ask."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.metadata import version
from typing import Any

from mediator.deid.orders import Column, IngestOrder
from mediator.errors import Code, Denied, Reason, UsageFault
from mediator.permit import open_revocations
from mediator.roles import Role, require
from node.core.airlock import handlers as airlock
from node.core.airlock.airlock import waits
from node.core.core import CoreProcess
from node.core.datasets.removal import withdraw
from node.core.images import handlers as images
from node.core.site_keys.retire import record_retirement
from node.core.tasks import handlers as jobs
from node.core.tasks import pause, watch
from node.core.tasks.link_handlers import outcome
from node.core.tasks.overview import run_account
from node.host.config import NodeConfig
from node.ipc import deid_keys, verbs
from node.ipc.channel import Call, Handler, Server, Verb
from node.ipc.messages import Empty

# a checkpoint is asked for by people: long enough for a hub across the country to answer
_WITNESS_WAIT_S = 10.0


def servers(config: NodeConfig, process: CoreProcess) -> list[Server]:
    """A server for each role; who may open its socket is the role's group, or root and core's user alone."""
    groups = config.staff.groups()
    return [
        Server(
            config.paths.staff_socket(role.value),
            verbs.ADMIN,
            handlers(process, role.value),
            group=groups[role.value],
            permit=partial(require, role.value),
        )
        for role in Role
    ]


def handlers(process: CoreProcess, actor: str) -> Mapping[Verb[Any, Any], Handler]:
    """The staff's verbs, for one role: audit records name the role that asked."""
    core, asked = process.core, _Asked(process, actor)

    def do_pause(_request: Empty) -> verbs.Paused:
        done = pause.pause(core, process.sandboxes, actor)
        return verbs.Paused(stopped=done.stopped, all_ended=done.all_ended, recorded=done.recorded, kept=done.kept)

    def do_resume(_request: Empty) -> Empty:
        pause.resume(core, actor)
        return Empty()

    def canary(_request: Empty) -> verbs.CanaryAnswer:
        fingerprint, failures = process.trust.probe_now(core.ceiling)
        return verbs.CanaryAnswer(fingerprint=fingerprint, failures=failures)

    return {
        verbs.STATUS: asked.status,
        verbs.PAUSE: do_pause,
        verbs.RESUME: do_resume,
        verbs.INGEST: asked.ingest,
        verbs.DATASETS: asked.datasets,
        verbs.DATASET_WITHDRAW: asked.withdraw,
        verbs.PERMITS: asked.permits,
        verbs.PERMIT_TEXT: asked.permit_text,
        verbs.PERMIT_ACCEPT: lambda request: outcome(partial(process.documents.accept, actor=actor), request.text),
        verbs.DOCUMENTS_IMPORT: lambda request: outcome(partial(process.documents.receive, actor=actor), request.text),
        verbs.RUNS: asked.runs,
        verbs.CANARY: canary,
        verbs.AUDIT_CHECKPOINT: asked.checkpoint,
        **airlock.handlers(process, actor),
        **images.handlers(process, actor),
        **jobs.handlers(process, actor),
        deid_keys.DEID_KEY_RETIRE: asked.key_retired,
    }


class _Asked:
    """The answers that take more than a line."""

    def __init__(self, process: CoreProcess, actor: str) -> None:
        self._process = process
        self._core = process.core
        self._actor = actor

    def key_retired(self, request: deid_keys.KeyRetirement) -> Empty:
        record_retirement(self._core, request.key, self._actor, destroyed=request.destroyed)
        return Empty()

    def status(self, _request: Empty) -> verbs.Status:
        core, process = self._core, self._process
        with core.store.read() as snapshot:
            newest, seen = snapshot.newest_checkpoint(), snapshot.witnessed()
            listed, canary = core.revocations(snapshot), snapshot.newest_canary_of_all()
            waiting, late = waits(core, snapshot)
            return verbs.Status(
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
                audit_records=snapshot.audit_size(),
                audit_checkpointed=0 if newest is None else newest.size,
                audit_witnessed=max((row.size for row in seen), default=0),
                airlock_waiting=waiting,
                airlock_overdue=late,
                sandbox="unknown" if canary is None else ("held" if canary.passed else "failed"),
                unrecorded=core.deferred.count(),
                sandbox_age_s=None if canary is None else (core.clock() - canary.time).total_seconds(),
            )

    def ingest(self, request: verbs.Ingest, _call: Call) -> Iterator[verbs.IngestHappened]:
        def order(name: str) -> IngestOrder:
            try:
                return IngestOrder(
                    order=name,
                    site=self._core.site,
                    project=request.project,
                    dataset=request.dataset,
                    source=request.source,
                    profile=request.profile,
                    clinical=request.clinical,
                    columns=tuple(_column(column) for column in request.columns),
                    test_fraction=request.test_fraction,
                )
            except ValueError as error:
                raise UsageFault(str(error)) from error

        for news in self._process.ingests.give(order, self._actor):
            manifest = news.manifest
            yield verbs.IngestHappened(
                kind=news.kind,
                order=news.order,
                stage=news.stage,
                done=news.done,
                total=news.total,
                dataset_version=None if manifest is None else manifest.dataset_version,
                counts={} if manifest is None else manifest.counts,
                excluded={} if manifest is None else manifest.excluded,
                error=news.error,
                hint=news.hint,
                again=news.again,
            )

    def datasets(self, _request: Empty) -> verbs.Datasets:
        with self._core.store.read() as snapshot:
            rows = snapshot.dataset_versions()
        return verbs.Datasets(
            items=tuple(
                verbs.DatasetLine(
                    dataset=row.dataset,
                    project=row.project,
                    dataset_version=row.dataset_version,
                    created=row.created,
                    counts=row.counts,
                    excluded=row.excluded,
                    withdrawn=row.withdrawn is not None,
                )
                for row in rows
            )
        )

    def withdraw(self, request: verbs.WithdrawDataset) -> Empty:
        withdraw(self._core, self._process.sandboxes, request.dataset_version, self._actor)
        return Empty()

    def permits(self, _request: Empty) -> verbs.Permits:
        core = self._core
        with core.store.read() as snapshot:
            listed, rows = core.revocations(snapshot), snapshot.permits()
            accepted = {row.sha256: snapshot.acceptance(row.permit, row.permit_version) for row in rows}
        revoked = () if listed is None else open_revocations(listed.text, core.trust.committee).document.permits
        return verbs.Permits(
            items=tuple(
                verbs.PermitLine(
                    permit=row.permit,
                    permit_version=row.permit_version,
                    project=row.project,
                    not_before=row.not_before,
                    expires=row.expires,
                    accepted=accepted[row.sha256] is not None,
                    revoked=row.permit in revoked,
                )
                for row in rows
            )
        )

    def permit_text(self, request: verbs.PermitId) -> verbs.SignedText:
        with self._core.store.read() as snapshot:
            row = snapshot.permit(request.permit, request.permit_version)
        if row is None:
            raise Denied(Reason(Code.PERMIT_MISSING, "the node does not hold this permit"))
        return verbs.SignedText(text=row.text)

    def runs(self, _request: Empty) -> verbs.Runs:
        with self._core.store.read() as snapshot:
            accounts = [run_account(snapshot, order) for order in snapshot.run_orders()]
        return verbs.Runs(
            items=tuple(
                verbs.RunLine(
                    run=account.order.run,
                    permit=account.order.permit,
                    permit_version=account.order.permit_version,
                    rounds=account.order.rounds,
                    rounds_charged=account.rounds_charged,
                    bytes_charged=account.bytes_charged,
                    bytes_released=account.bytes_released,
                    releases=account.releases,
                    epsilon=account.epsilon,
                    state=account.state,
                )
                for account in accounts
            )
        )

    def checkpoint(self, _request: Empty) -> verbs.CheckpointText:
        """Sign now, and wait a while for the hub's signature; without a hub the checkpoint stands alone."""
        text = watch.checkpoint(self._core)
        with self._core.store.read() as snapshot:
            newest = snapshot.newest_checkpoint()
        deadline = time.monotonic() + _WITNESS_WAIT_S
        while newest is not None and time.monotonic() < deadline:
            with self._core.store.read() as snapshot:
                if any(row.size >= newest.size for row in snapshot.witnessed(newest.size - 1)):
                    break
            time.sleep(0.05)
        self._process.export()
        return verbs.CheckpointText(text=text)


def _column(column: verbs.IngestColumn) -> Column:
    if column.categories:
        return Column(column.name, "category", categories=column.categories)
    if column.minimum is None or column.maximum is None:
        raise ValueError("a column of numbers needs a minimum and a maximum")
    return Column(column.name, "number", column.minimum, column.maximum)
