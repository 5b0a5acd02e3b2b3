"""One node's core: the store, the gates' callers, and what looks after them, put together."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from containers.canary import canary_spec, run_canary
from containers.warm.pool import Sandboxes, SandboxKey, WarmContainer
from durable.reading_group import ReadingGroup
from federation.client.objects import FlowerCodec
from federation.client.ports import OutgoingReply, Retry, ShownCheckpoint, Trouble
from mediator.audit import Action, Epoch, Verdict
from mediator.errors import Code, Denied, HubCode, NotNow, Reason
from mediator.jobs import JobState
from mediator.ports import Clock, Runner
from mediator.types import ContainerSpec
from node.core.airlock import airlock
from node.core.airlock.settings import settings
from node.core.audit import epochs
from node.core.audit.witness import WitnessDesk
from node.core.clock import ClockWatch, boot_time_s
from node.core.context import Core, CoreKeys, Folders, PrivacySettings, Trust, event
from node.core.datasets.removal import remove_unheld
from node.core.deferred_records import DeferredRecords
from node.core.documents.documents import Documents
from node.core.imports.imports import Imports
from node.core.records import JobRow
from node.core.reserve import Reserve
from node.core.store.audit_log import AuditLog
from node.core.store.store import Store, open_store
from node.core.switch import Switch
from node.core.tasks import admit_task, watch
from node.core.tasks.certificate_alarm import CertificateAlarms
from node.core.tasks.outbox import Outbox, take_back
from node.core.tasks.run_job import JobThreads
from node.core.tasks.self_test import SelfTest
from node.core.tasks.trust_sandbox import RunCanary, SandboxTrust
from node.host.config import NodeConfig
from node.host.keys import read_signing_key
from node.host.versions import job_view, read_manifest

log = logging.getLogger(__name__)

# the supervisor waits 6 s for this process to end
_LAST_WORDS_S = 1.0


def now() -> datetime:
    """The one clock of this process."""
    return datetime.now(UTC)


class CoreProcess:
    """One node's core, wired. `runner` is the broker, or what a test puts in its place."""

    def __init__(
        self, config: NodeConfig, runner: Runner, wall: Clock = now, boot_s: Callable[[], float] = boot_time_s
    ) -> None:
        self.config = config
        self.site = config.site
        self.started = wall()
        self.clock = ClockWatch(wall, boot_s)
        self._hub_has_link = False
        self._trouble: Trouble = ""
        self._outboxes = 0
        self._progress: dict[tuple[str, str], float] = {}
        paths = config.paths
        reserve = Reserve(paths.reserve)
        reserve.free_if_full()  # a database cannot be opened where nothing can be written beside it
        store = open_store(config.database_url(), wall())
        store.before_writing = self.clock.require
        self.core = _core(config, store, reserve, wall)
        self.audit_log = AuditLog(store, paths.audit, paths.witness_file)
        self.witness = WitnessDesk(self.core)
        self._exporting = threading.Lock()
        self._beginning = threading.Lock()
        self._begun = False
        self.trust = SandboxTrust(self.core, self._canary(runner))
        self.sandboxes = Sandboxes(
            runner,
            paths.work,
            self.core.keys.verdict.sign,
            self.trust.require,
            self._progressed,
            self._destroyed,
            config.limits.keep_log_s,
            self.core.job_group,
        )
        self.trust.sandboxes = self.sandboxes
        self.self_test = SelfTest(self.core, runner, self.trust, config.engine.sentinel)
        self.outbox = Outbox(self.core)
        self.jobs = JobThreads(self.core, self.sandboxes, self._make_view, airlock.hold)
        self.watch = watch.Watch(
            self.core,
            self.sandboxes,
            self.outbox,
            self.export,
            idle_s=config.limits.idle_s,
            checkpoint_every_s=config.audit.checkpoint_interval_s,
            tend=self._tend,
        )
        self.documents = Documents(self.core, self._documents_changed)
        self.imports = Imports(self.core, version("cloister"))
        self._alarms = CertificateAlarms(self.core)
        self._wake_export = threading.Event()
        self._ended = threading.Event()
        store.after_commit(self._wake_export.set)
        self._exporter = threading.Thread(target=self._export_for_ever, name="audit-export", daemon=True)

    # --- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Continue whatever the last core left, then serve. Raises `IntegrityBroken` for a log behind its own files.

        By a clock that is not believed (`ClockWatch`) nothing is recorded, so nothing is taken up: staff and link are
        served, and one of them may say that it is right.
        """
        self.core.switch.prepare()
        self.core.reserve.make()
        self._sweep()
        with self.core.store.read() as snapshot:
            self.clock.begin(snapshot.newest_audit_time())
        self.export()
        self._exporter.start()
        self.begin()
        if not self._begun:
            log.error("no work is taken up: the clock stands far past the newest record, and no hub confirms it yet")

    def begin(self) -> None:
        """Take work up, once, when the clock is believed."""
        with self._beginning:
            if self._begun or self.clock.state() != "right":
                return
            epochs.look_back(self.core, self.audit_log)
            with self.core.store.transaction(self.core.clock()) as tx:
                tx.record(event=event(Action.NODE_START, f"site/{self.site}", Verdict.DONE))
            watch.checkpoint(self.core)  # a log without any signature proves nothing
            self._begun = True
            self.imports.start()
            self.jobs.start()
            self.watch.start()

    @property
    def watches(self) -> bool:
        """Whether what ends containers still comes round; true before work is taken up, when there are none."""
        return not self._begun or self.watch.comes_round

    def halt(self) -> None:
        """End every container, before anything that may wait for a disk or a caller."""
        self.jobs.leave_off()
        self.sandboxes.shut_down()

    def stop(self, *, changed: bool = False) -> None:
        """Stop taking work. Containers are ended first: their tasks are given again at the next start.

        `changed`: because the state folder is not as it was made, which is written down.
        """
        self.halt()
        if self._begun:
            self.jobs.stop()
            self.watch.stop()
        self.core.deferred.close(_LAST_WORDS_S)
        if self.clock.state() == "right":
            self.core.refusals.sum_up(self.core.store, self.core.clock())
            with self.core.store.transaction(self.core.clock()) as tx:
                if changed:
                    tx.record(event=event(Action.NODE_STOP, "state", Verdict.FAILED, code=Code.INTERNAL))
                tx.record(event=event(Action.NODE_STOP, f"site/{self.site}", Verdict.DONE))
        self._ended.set()
        self._wake_export.set()
        self._exporter.join(5)
        self.export()
        self.core.store.close()

    def export(self) -> None:
        """Bring the log's files up to what is committed."""
        with self._exporting:
            self.audit_log.export()

    # --- what the link asks (node.core.tasks.link_handlers.CoreSide) ----------------------------------------------

    def greet(self, connected: bool) -> bool:
        """The link says whether the hub has it; told whether the node is paused."""
        self._hub_has_link = connected
        if connected:
            self._trouble = ""
        if self.core.switch.on:
            return True
        with self.core.store.read() as snapshot:
            return snapshot.paused()

    def receive_document(self, text: str) -> bool:
        return self.documents.receive(text)

    def receive_instruction(self, text: str, reply_context: bytes, model: Iterable[bytes]) -> HubCode | None:
        code = admit_task.receive(self.core, text, reply_context, model)
        self.jobs.submit_unfinished()
        return code

    def outgoing(self, active: Callable[[], bool]) -> Iterator[OutgoingReply]:
        self._outboxes += 1
        try:
            yield from self.outbox.follow(active)
        finally:
            self._outboxes -= 1

    @property
    def hub_connected(self) -> bool:
        """What the link said last, while there is a link."""
        return self._hub_has_link and self._outboxes > 0

    @property
    def hub_trouble(self) -> Trouble:
        """Why the hub has no business with this node, as the link said last."""
        return self._trouble

    def hub_has_trouble(self, trouble: Trouble) -> None:
        self._trouble = trouble

    def delivered(self, instruction: str) -> None:
        self.outbox.delivered(instruction)

    def failed(self, kind: str, subject: str, reason: str, final: bool) -> Retry:
        return self.outbox.failed(kind, subject, reason, final=final)

    def may_leave(self, instruction: str) -> bool:
        return self.outbox.may_leave(instruction)

    def witness_holds(self, text: str, refused: bool) -> None:
        self.witness.holds(text, refused)
        self.watch.look()

    def checkpoints(self, active: Callable[[], bool]) -> Iterator[ShownCheckpoint]:
        return self.witness.to_show(active)

    def witnessed(self, text: str) -> None:
        self.witness.witnessed(text)

    def hub_time(self, time: datetime) -> None:
        self.clock.hear(time)
        self.begin()

    def certificate_alarm(self, code: Code) -> None:
        self._alarms.record(code)

    # --- what the staff's verbs ask -----------------------------------------------------------------------------

    def open_epoch(self, actor: str, *, restored: bool) -> Epoch:
        """Begin a new epoch of the log; what computes under what held before is ended."""
        epoch = epochs.open_epoch(self.core, self.audit_log, actor, restored=restored)
        self._documents_changed()
        self.export()
        return epoch

    def progress_of(self, job: JobRow) -> float:
        """The fraction a running job has reported of itself; a container's word, for eyes only."""
        if job.state is JobState.RUNNING:
            return self._progress.get((job.run, job.task.value), 0.0)
        return (
            1.0
            if job.state
            in (JobState.PRODUCED, JobState.RELEASING, JobState.RELEASED, JobState.DELIVERED, JobState.HELD)
            else 0.0
        )

    # --- inside -------------------------------------------------------------------------------------------------

    def _canary(self, runner: Runner) -> RunCanary:
        def run(name: str, spec: ContainerSpec, expected: str | None) -> tuple[str, tuple[str, ...]]:
            sentinel, root = self.config.engine.sentinel, self.config.paths.probe
            probe = canary_spec(spec, name=name, sentinel=sentinel, probe_root=root, now=now())
            signed = self.core.keys.verdict.sign(probe)
            fingerprint = runner.prepare(signed).fingerprint if expected is None else expected
            return fingerprint, run_canary(runner, signed, fingerprint).failures

        return run

    def _make_view(self, dataset_version: str, split: str, columns: tuple[str, ...], into: Path) -> None:
        with self.core.store.read() as snapshot:
            row = snapshot.dataset_version(dataset_version)
        if row is None:
            raise NotNow("the dataset version is gone")
        if row.withdrawn is not None:  # its files go
            raise Denied(Reason(Code.DATASET_MISSING, "the data was withdrawn"))
        version = self.core.folders.datasets / row.folder
        job_view(version, read_manifest(version), split, columns, into, self.core.job_group)  # type: ignore[arg-type]

    def _tend(self, core: Core) -> None:
        core.switch.prepare()
        core.reserve.make()
        self.trust.renew()  # first: nothing below keeps a running job from its canary
        airlock.tend(core)

    def _documents_changed(self) -> None:
        """A permit or a list came in: what computes is looked at first, then what waits."""
        self.watch.look()
        self.jobs.queue.recheck()
        self.core.deferred.add(lambda tx: take_back(self.core, tx))

    def _progressed(self, key: SandboxKey, _task: int, fraction: float) -> None:
        self._progress[key.run, key.task.value] = fraction

    def _destroyed(self, sandbox: WarmContainer) -> None:
        permit = f"{sandbox.key.permit}@{sandbox.key.permit_version}"
        deleted = event(Action.WORK_DELETE, f"sandbox/{sandbox.name}", Verdict.DONE, permit=permit)
        self.core.deferred.add(lambda tx: tx.record(event=deleted))

    def _sweep(self) -> None:
        try:
            self.sandboxes.sweep()
        except NotNow as error:
            log.warning("left-over containers are removed when the engine answers: %s", error.message)
        try:
            with self.core.datasets_lock:
                remove_unheld(self.core)
        except OSError as error:
            log.warning("left-over studies are removed at the next start: %s", type(error).__name__)

    def _export_for_ever(self) -> None:
        while not self._ended.is_set():
            self._wake_export.wait()
            self._wake_export.clear()
            try:
                self.export()
            except Exception as error:  # noqa: BLE001 - the thread must live: it tries again
                log.error("the audit log could not be exported: %s", type(error).__name__)
                self._ended.wait(1.0)
                self._wake_export.set()


def _core(config: NodeConfig, store: Store, reserve: Reserve, clock: Clock) -> Core:
    paths, trust = config.paths, config.trust
    return Core(
        site=config.site,
        store=store,
        deferred=DeferredRecords(store, clock, make_room=reserve.free_if_full),
        reserve=reserve,
        switch=Switch(paths.pause_mark),
        clock=clock,
        keys=CoreKeys(
            audit=read_signing_key(paths.audit_key),
            release=read_signing_key(paths.release_key),
            verdict=read_signing_key(paths.verdict_key),
        ),
        trust=Trust(
            committee=trust.ring("committee"),
            stewards=trust.ring("stewards"),
            hub=trust.ring("hub"),
            witnesses=trust.ring("witnesses"),
        ),
        folders=Folders(
            jobs=paths.jobs,
            releases=paths.releases,
            spool=paths.spool,
            datasets=paths.datasets,
            handover=paths.handover,
            work=paths.work,
        ),
        ceiling=config.ceiling,
        schedule=config.schedule.site,
        max_revocation_age=config.limits.max_revocation_age,
        codec=FlowerCodec(),
        random_bytes=secrets.token_bytes,
        airlock=settings(config.airlock),
        job_group=ReadingGroup(config.job_group),
        privacy=PrivacySettings(config.privacy.epsilon_total, config.privacy.delta),
    )
