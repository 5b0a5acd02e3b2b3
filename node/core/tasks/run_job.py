"""One admitted job from its row to its end: container, output, gate 2, answer. A crash anywhere is continued.

A job that the engine or the broker kept from running goes back to `admitted` and is tried again until its instruction
expires; a job that a gate or its own container ended is answered with a code from the closed vocabulary. Attempts of
one task are worked on one after the other: what the first releases is what the later ones deliver. Nobody is given a
container before its turn in the site's queue; a task that made room waits for the next one, with its checkpoint.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from containers.warm.container import sandbox_key
from containers.warm.pool import Preempted, Sandboxes, WarmTask
from mediator.admission import Admitted, Redeliver, container_spec
from mediator.audit import Action, Verdict
from mediator.errors import Code, Denied, Ended, IntegrityBroken, NotNow, Reason, UsageFault
from mediator.exits import told
from mediator.jobs import TERMINAL, JobState, JobStep
from mediator.types import Kind, OutputFile
from node.core.context import Core, event, permit_name
from node.core.records import InstructionRow, JobRow
from node.core.tasks.admit_task import MODEL, ask_again, forget, job_folder
from node.core.tasks.job_checkpoint import keep_checkpoint, kept_checkpoint
from node.core.tasks.queue import REMEMBERED, Ask, Queue, Turn
from node.core.tasks.release_output import keep_output, kept_output, redeliver, release_output

log = logging.getLogger(__name__)

MakeView = Callable[[str, str, tuple[str, ...], Path], None]
"""(dataset version, split, columns, folder): fill `/data`."""
Hold = Callable[[Core, JobRow, Admitted, Sequence[OutputFile]], None]
"""Ask gate 2 about an analysis's output, and keep every file. Raises `Denied` for no output."""

# whoever stops a job is told once that is written down, or after this
_RECORD_S = 1.0
# A task gives up its place this long after the engine went away, then tries again.
_RETRY_S = 2.0
# how often an attempt looks whether the one before it has ended
_ELDER_S = 0.2
# who waits for a turn is looked at again when the queue calls it
_CALLED = math.inf
# besides those that compute: for what is admitted, released or refused meanwhile
_SPARE_WORKERS = 2
# nothing is left to do here: it has ended, or its envelope waits for the link
_THROUGH = TERMINAL | {JobState.RELEASED}
# The hospital's staff or the law ended the job; nothing is wrong with it.
_STOPPING = frozenset(
    {
        Code.HOSPITAL_PAUSED, Code.STOPPED, Code.PERMIT_EXPIRED, Code.PERMIT_REVOKED, Code.PERMIT_SUPERSEDED,
        Code.ACCEPTANCE_EXPIRED, Code.RUN_ORDER_EXPIRED, Code.REVOCATION_LIST_STALE, Code.CLOCK_WENT_BACK,
        Code.IMAGE_NOT_APPROVED,
    }
)  # fmt: skip


class JobThreads:
    """Works through jobs with a few threads; `submit` takes what the store says is unfinished.

    `hold` takes an analysis's files into the airlock.
    """

    def __init__(self, core: Core, sandboxes: Sandboxes, make_view: MakeView, hold: Hold) -> None:
        workers = core.schedule.capacity.concurrent_jobs + _SPARE_WORKERS
        self._core = core
        self._sandboxes = sandboxes
        self._make_view = make_view
        self._hold = hold
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._taken: set[str] = set()
        self._ordered_to_end: set[str] = set()
        # how jobs have ended whose rows do not say so yet
        self._ends: dict[str, Reason] = {}
        self.queue = Queue(core.schedule, core.clock, sandboxes, self._is_paused, self._queue.put)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._workers = [threading.Thread(target=self._work, name=f"job-{n}", daemon=True) for n in range(workers)]

    def start(self) -> None:
        """Put what a crash left where it continues, then work."""
        with self._core.store.read() as snapshot:
            left = snapshot.unfinished()
            self.queue.remember(snapshot.recent_use(self._core.clock() - REMEMBERED))
        for row in left:
            if row.state is not JobState.RELEASED:
                self._recover(row)
        self._sweep_folders({row.job for row in left})
        for worker in self._workers:
            worker.start()
        self.queue.start()
        self.submit_unfinished()

    def submit_unfinished(self) -> None:
        """Queue every unfinished job that is not queued yet."""
        with self._core.store.read() as snapshot:
            rows = snapshot.unfinished()
        with self._lock:
            new = [row.job for row in rows if row.state is not JobState.RELEASED and row.job not in self._taken]
            self._taken.update(new)
        for job in new:
            self._queue.put(job)

    def leave_off(self) -> None:
        """Begin nothing more."""
        self._ended.set()

    def stop(self) -> None:
        """Take no more jobs. Running ones go back to where the next start continues."""
        self.leave_off()
        self.queue.stop()
        for _ in self._workers:
            self._queue.put(None)

    def end(self, job: str, actor: str) -> None:
        """End a job that has not ended, for a member of the staff; one that has its turn before anything is asked of
        the store. Raises `UsageFault` for any other, `NotNow` where it is stopped and that is not written down yet."""
        turn = self.queue.turn(job)
        permit = self._open_permit(job) if turn is None else turn.permit
        asked = event(Action.JOB_STOP, job, Verdict.ALLOWED, permit=permit, actor=actor)
        debt = self._core.deferred.add(lambda tx: tx.record(event=asked))
        self._ordered_to_end.add(job)
        stopping = None
        if turn is not None:
            stopping = self._sandboxes.begin_stop(Code.STOPPED, lambda key: key == turn.ask.key)
        if stopping is not None:
            stopping.wait()
        self.queue.recall(job)
        if not debt.paid.wait(_RECORD_S):
            raise NotNow(
                "the job is stopped, which is not written down yet: a restart would begin it again",
                hint="is the disk full, or the database locked? when that is mended, do it again",
            )

    def _open_permit(self, job: str) -> str:
        with self._core.store.read() as snapshot:
            row = snapshot.job(job)
        if row is None or row.state in _THROUGH:
            raise UsageFault("there is no such job, or it has ended")
        return permit_name(row.permit, row.permit_version)

    def _is_paused(self) -> bool:
        if self._core.switch.on:
            return True
        with self._core.store.read() as snapshot:
            return snapshot.paused()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None and not self._ended.is_set():
            again_s: float | None = None
            try:
                again_s = self._advance(job)
            except NotNow as error:  # nothing can be read or written: what the job is at stays as it is
                log.warning("job %s waits: %s", job, error.message)
                again_s = _RETRY_S
            except Exception as error:  # noqa: BLE001 - the worker loop: the job is answered, the worker goes on
                log.error("job %s failed: %s", job, type(error).__name__)
                again_s = self._fail(job)
            finally:
                self._put_off(job, again_s)

    def _fail(self, job: str) -> float | None:
        """End a job that nobody foresaw the end of; after how many seconds to try again where that fails too."""
        try:
            self._answer(job, Reason(Code.JOB_FAILED))
        except Exception as error:  # noqa: BLE001 - the worker must live for the other jobs
            log.error("job %s cannot be answered: %s", job, type(error).__name__)
            return _RETRY_S
        return None

    def _put_off(self, job: str, again_s: float | None) -> None:
        """Look at a job again after so many seconds, when the queue calls it (infinity), or never (None)."""
        if again_s is None:
            with self._lock:
                self._taken.discard(job)
        elif again_s is not _CALLED:
            timer = threading.Timer(again_s, self._queue.put, (job,))
            timer.daemon = True
            timer.start()

    def _advance(self, job: str) -> float | None:
        """Work on one job until it has ended, or waits; after how many seconds to look again, None for never."""
        while not self._ended.is_set():
            if (reason := self._ends.get(job)) is not None:
                self._answer(job, reason)
                return None
            row, instruction = self._load(job)
            turn = self.queue.turn(job)
            if row.state in (JobState.PREPARING, JobState.RUNNING):  # its container is gone, which could not be written
                row = self._recover(row)
            try:
                if job in self._ordered_to_end and row.state not in _THROUGH:
                    raise Ended(Reason(Code.STOPPED))
                if row.state in (JobState.ADMITTED, JobState.PREPARING, JobState.RUNNING):
                    if self._has_elder(row, instruction.attempt):
                        return _ELDER_S
                    if turn is not None:
                        self._run(row, instruction, turn)
                    elif self._enter(row, instruction):
                        return _CALLED
                elif row.state is JobState.PRODUCED:
                    self._release(row, instruction)
                else:
                    return None
            except Preempted as left:
                self._make_room(row.job, instruction, left.checkpoint)
            except Denied as denied:
                self._answer(job, denied.reasons[0])
                return None
            except Ended as ended:
                self._answer(job, ended.reason)
                return None
            except NotNow as error:
                log.warning("job %s waits: %s", job, error.message)
                self._recover(self._load(job)[0])
                if self._core.clock() >= instruction.expires:
                    self._answer(job, Reason(Code.INSTRUCTION_EXPIRED))
                    return None
                return _RETRY_S
            finally:
                if turn is not None:  # not one that it was given since: another thread may be at work with it
                    self.queue.give_back(turn)
        return None

    def _enter(self, row: JobRow, instruction: InstructionRow) -> bool:
        """Have a task wait for its turn, if gate 1 still says yes; false where it is answered without one."""
        admitted = self._ask_again(row, instruction, (job_folder(self._core, row.job) / MODEL).read_bytes())
        if admitted is None:
            return False
        resources = admitted.permit.terms.resources
        self.queue.enter(
            Ask(
                job=row.job,
                key=sandbox_key(admitted),
                project=admitted.permit.terms.project,
                asked=row.created,
                since=row.updated,
                expires=instruction.expires,
                gpus=resources.gpus,
                gpu_memory_bytes=resources.gpu_memory_bytes,
            )
        )
        return True

    def _ask_again(self, row: JobRow, instruction: InstructionRow, model: bytes) -> Admitted | None:
        """Gate 1's verdict as of now; None where an earlier attempt was released since, and this one with it."""
        admitted = ask_again(self._core, instruction.text, model)
        if isinstance(admitted, Redeliver):
            self._redeliver(row.job, admitted, permit_name(instruction.permit, instruction.permit_version))
            return None
        return admitted

    def _run(self, row: JobRow, instruction: InstructionRow, turn: Turn) -> None:
        core, folder = self._core, job_folder(self._core, row.job)
        model = (folder / MODEL).read_bytes()
        admitted = self._ask_again(row, instruction, model)
        if admitted is None:
            return
        permit = permit_name(admitted.permit.terms.permit, admitted.permit.terms.permit_version)
        self._step(row.job, JobStep.PREPARE, Action.JOB_PREPARE, instruction.instruction, permit)
        key = sandbox_key(admitted)

        def guard(sandbox: str) -> None:
            if row.job in self._ordered_to_end:
                raise Ended(Reason(Code.STOPPED))
            _still(ask_again(core, instruction.text, model))
            self._step(row.job, JobStep.START, Action.JOB_START, instruction.instruction, permit, sandbox=sandbox)

        files = self._sandboxes.serve(
            key,
            WarmTask(
                admitted.instruction.task,
                admitted.instruction.round,
                admitted.instruction.config,
                model,
                kept_checkpoint(folder),
                admitted.permit.tensor_names,
            ),
            make_view=lambda into: self._make_view(
                admitted.dataset_version, admitted.split, admitted.permit.terms.columns, into
            ),
            make_spec=lambda name, data, inbox: container_spec(
                admitted, name, str(data), str(inbox), core.clock(), turn.gpus
            ),
            limit_s=float(admitted.permit.terms.resources.wall_time_s),
            guard=guard,
            gpus=turn.gpus,
        )
        if is_last(admitted):  # before anything that may wait for the disk
            self._sandboxes.begin_stop(Code.STOPPED, lambda other: other == key)
        keep_output(folder, files)
        self._step(row.job, JobStep.PRODUCE, Action.JOB_PRODUCE, instruction.instruction, permit)

    def _make_room(self, job: str, instruction: InstructionRow, checkpoint: bytes | None) -> None:
        """Keep what the job left to go on from; it waits for its next turn."""
        keep_checkpoint(job_folder(self._core, job), checkpoint)
        permit = permit_name(instruction.permit, instruction.permit_version)
        self._step(job, JobStep.PREEMPT, Action.JOB_PREEMPT, instruction.instruction, permit)

    def _release(self, row: JobRow, instruction: InstructionRow) -> None:
        core, folder = self._core, job_folder(self._core, row.job)
        given = (folder / MODEL).read_bytes()
        # what was revoked meanwhile does not leave; what was computed does, at any hour
        admitted = _still(ask_again(core, instruction.text, given, computing=False))
        try:
            if admitted.instruction.task is Kind.ANALYSE:
                self._hold(core, row, admitted, kept_output(folder))
            else:
                release_output(core, row, admitted, given, kept_output(folder))
        except Denied:
            # a container whose output was refused does not get another task
            self._sandboxes.stop(Code.STOPPED, lambda other: other == sandbox_key(admitted))
            raise
        forget(core, row.job)

    def _redeliver(self, job: str, verdict: Redeliver, permit: str) -> None:
        core = self._core
        with core.store.transaction(core.clock()) as tx:
            again = event(Action.REDELIVER, verdict.instruction.id, Verdict.ALLOWED, permit=permit)
            tx.advance(job, JobStep.REDELIVER, event=again)
            redeliver(core, tx, job, verdict)
        forget(core, job)

    def _has_elder(self, row: JobRow, attempt: int) -> bool:
        """Whether an earlier attempt of this task is still at work; its release will be this attempt's too."""
        task = (row.run, row.round, row.task)
        with self._core.store.read() as snapshot:
            working = [each for each in snapshot.unfinished() if each.state is not JobState.RELEASED]
            same = [each.instruction for each in working if (each.run, each.round, each.task) == task]
            asked = [snapshot.instruction(name) for name in same]
        return any(other is not None and other.attempt < attempt for other in asked)

    def _load(self, job: str) -> tuple[JobRow, InstructionRow]:
        with self._core.store.read() as snapshot:
            row = snapshot.job(job)
            instruction = None if row is None else snapshot.instruction(row.instruction)
        if row is None or instruction is None:
            raise IntegrityBroken("a job without its row or its instruction")
        return row, instruction

    def _step(
        self, job: str, happened: JobStep, action: Action, about: str, permit: str, sandbox: str | None = None
    ) -> None:
        with self._core.store.transaction(self._core.clock()) as tx:
            decided = event(action, about, Verdict.ALLOWED, permit=permit)
            used_s = self.queue.spent_s(job) if happened in (JobStep.PRODUCE, JobStep.PREEMPT) else 0.0
            tx.advance(job, happened, event=decided, sandbox=sandbox, used_s=used_s)

    def _recover(self, row: JobRow) -> JobRow:
        with self._core.store.transaction(self._core.clock()) as tx:
            return tx.recover(row.job, event=event(Action.RECOVER, row.job, Verdict.DONE))

    def _answer(self, job: str, reason: Reason) -> None:
        """End a job with a code: refused by a gate, failed in its container, or stopped from outside.

        Raises `NotNow` while that cannot be written down; it has ended so all the same, and is answered later.
        """
        self._ends.setdefault(job, reason)
        if job in self._ordered_to_end:  # who asked for it is written first
            self._core.deferred.settle(_RECORD_S)
        row, instruction = self._load(job)
        if row.state in _THROUGH:
            del self._ends[job]
            return
        permit = permit_name(instruction.permit, instruction.permit_version)
        if reason.code in _STOPPING:
            happened, verdict = JobStep.STOP, Verdict.REFUSED
        elif row.state in (JobState.PREPARING, JobState.RUNNING):
            happened, verdict = JobStep.FAIL, Verdict.FAILED
        else:
            happened, verdict = JobStep.REFUSE, Verdict.REFUSED
        about = instruction.instruction
        written = event(Action.JOB_END, about, verdict, permit=permit, code=reason.code)
        if happened is JobStep.REFUSE:
            written = event(Action.RELEASE, about, verdict, permit=permit, code=reason.code)
        if reason.code is Code.GPU_UNAVAILABLE:  # nothing that the job or its permit could mend
            log.warning("job %s ended: %s: cloister check says what the engine can give", job, reason)
        else:
            log.info("job %s ended: %s", job, reason)
        with self._core.store.transaction(self._core.clock()) as tx:
            outward = told(reason.code, tx.ends_told(row.run))
            used_s = self.queue.spent_s(job) if row.state in (JobState.PREPARING, JobState.RUNNING) else 0.0
            tx.advance(job, happened, event=written, code=reason.code, hub_code=outward, used_s=used_s)
        forget(self._core, job)
        del self._ends[job]
        self._ordered_to_end.discard(job)

    def _sweep_folders(self, kept: set[str]) -> None:
        for folder in self._core.folders.jobs.iterdir():
            if folder.name not in kept:
                forget(self._core, folder.name)


def _still(verdict: Admitted | Redeliver) -> Admitted:
    """The verdict of a task that may go on. Raises `Denied` where its round was served meanwhile."""
    if isinstance(verdict, Redeliver):
        raise Denied(Reason(Code.ROUND_ALREADY_SERVED))
    return verdict


def is_last(admitted: Admitted) -> bool:
    """Whether this kind of task comes no more in its run, so that its container need not wait to be idle."""
    return admitted.instruction.round == admitted.order.rounds
