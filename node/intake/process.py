"""The intake process: the only one that sees identified data."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from mediator.errors import CloisterError, NotNow, UsageFault
from mediator.import_orders import IngestOrder
from node.deid.pipeline import NoRoom
from node.deid.processes import WorkerProcesses
from node.deid.worker_settings import LogForm
from node.host.config import NodeConfig
from node.host.disk_errors import is_full
from node.host.keys import read_raw_key
from node.host.notify import Notifier, Pulse
from node.host.versions import REPORT
from node.intake.handover import ReadyStudy
from node.intake.run_import import IntakeFolders, IntakeKeys, Progress, destroy_import, run_import
from node.ipc import intake as words
from node.ipc.channel import Client
from node.ipc.messages import Empty

log = logging.getLogger(__name__)

# at most four lines a second to core, whatever the number of files
_REPORT_EVERY_S = 0.25
# The longest between two steps of an import: core takes an hour for a study at most (`_steps`).
_LONGEST_STEP_S = 3600.0 + 600.0
# as core names imports; what is called otherwise is told as unknown
_NAME = re.compile(r"ingest-[0-9a-f]{12}")


def run(config: NodeConfig) -> None:
    """Carry out orders until SIGTERM; an import broken off is given again and continues."""
    # what is handed over is core's to read, by the folder's group; quarantine is closed by its own folder's mode
    os.umask(0o027)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    notifier = Notifier.from_environment()
    pulse = Pulse(notifier, _LONGEST_STEP_S)
    intake = IntakeProcess(config, Client(config.paths.intake_socket), step=pulse.step)
    pulse.start()
    notifier.ready()
    while True:
        pulse.idle()
        try:
            intake.serve(pulse.idle)
        except NotNow:
            time.sleep(0.5)  # core is starting or restarting


class Stopped(Exception):
    """Core does not want the import any more."""


class IntakeProcess:
    """Takes one import after another from core."""

    def __init__(self, config: NodeConfig, core: Client, *, step: Callable[[], None] = lambda: None) -> None:
        """`step` is called as an import goes on."""
        self._config = config
        self._step = step
        self._core = core
        self._rooms = IntakeFolders(quarantine=config.paths.quarantine, handover=config.paths.handover)

    def serve(self, idle: Callable[[], None] = lambda: None) -> None:
        """Until core ends the stream. Raises `NotNow` while it is away. `idle` is called before each wait."""
        self.sweep()
        for work in self._core.stream(words.ORDERS, Empty()):
            self._step()
            try:
                self._end(self._carry_out(work))
            except NotNow:
                raise
            except CloisterError as error:  # the next order is another; this one is given again with the next stream
                log.error("core did not take how %s ended: %s", work.order.order, error.message)
            idle()

    def sweep(self) -> None:
        """Destroy what belongs to no import that core still has, and tell it."""
        live = set(self._core.call(words.LIVE, Empty()).orders)
        for order in sorted(_names(self._rooms.quarantine) | _names(self._rooms.handover)):
            if order not in live:
                try:
                    self._sweep_one(order)
                except NotNow:
                    raise
                except CloisterError as error:
                    log.error("core did not take what is left of an import: %s", error.message)
                except OSError as error:  # another's file in the way, such as a file system's own lost+found
                    log.error("what is left of an import cannot be destroyed: %s", type(error).__name__)

    def _sweep_one(self, order: str) -> None:
        """Core is told of originals, and before it has answered it can be told again."""
        if not (self._rooms.quarantine / order).is_dir() and not self._rooms.note(order).exists():
            destroy_import(order, self._rooms, None)
            return
        destroyed = destroy_import(order, self._rooms, None)
        log.warning("what an import without a record had left is destroyed: %d originals", destroyed)
        name = order if _NAME.fullmatch(order) else "unknown"
        self._core.call(words.SWEPT, words.Swept(order=name, destroyed=destroyed))
        self._rooms.note(order).unlink(missing_ok=True)

    def _carry_out(self, work: words.Work) -> words.IngestEnd:
        """How it ended. An error's text is ours: no path and no patient."""
        order = work.order
        if work.kind == "destroy":
            return self._failed(order, "it was stopped")
        if self._rooms.note(order.order).exists():  # told to nobody yet; what is left of it is not gone on with
            return self._failed(order, "intake had begun to destroy it", hint="give the order again", again=True)
        if work.begun and not self._has(order.order):
            return self._failed(order, "what intake had taken in of it is lost", hint="give the order again")
        try:
            # read for each order: a key that was retired meanwhile must not live on in this process
            paths = self._config.paths
            keys = IntakeKeys(site=read_raw_key(paths.site_key), quarantine=read_raw_key(paths.quarantine_key))
            last = self._follow(order.order, self._steps(work, keys))
        except Stopped:
            return self._failed(order, "it was stopped")
        except NoRoom:
            return self._failed(order, "the disk is full", again=True)
        except NotNow:
            raise
        except CloisterError as error:
            return self._failed(order, error.message, hint=error.hint)
        except Exception as error:  # noqa: BLE001 - the worker loop: the order is answered, the originals destroyed
            log.error("%s failed: %s", order.order, type(error).__name__)
            if _is_full(error):
                return self._failed(order, "the disk is full", again=True)
            return self._failed(order, "intake failed; its log names the class of the error")
        return words.IngestEnd(order=order.order, destroyed=last.destroyed, waiting=last.waiting)

    def _has(self, order: str) -> bool:
        """Whether anything of an import is left here: its originals, or its account for core."""
        room, _, ready = self._rooms.of(order)
        return room.exists() or (ready / REPORT).is_file()

    def _follow(self, order: str, steps: Iterator[Progress]) -> Progress:
        """Every step, told to core now and then; the last one. Raises `Stopped`."""
        told_s, stage, last = 0.0, "", Progress("take_in", 0, 0)
        with closing(steps):  # type: ignore[type-var]
            for last in steps:
                self._step()
                if last.line:
                    log.info("%s: %s", order, last.line)
                begins, stage = last.stage != stage, last.stage
                if begins or time.monotonic() - told_s > _REPORT_EVERY_S or last.done == last.total:
                    told_s = time.monotonic()
                    self._tell(order, last)
        return last

    def _steps(self, work: words.Work, keys: IntakeKeys) -> Iterator[Progress]:
        """The order's steps, with workers as the configuration has them."""
        wishes, logging_, order = self._config.intake, self._config.logging, work.order

        def take(ready: ReadyStudy) -> None:
            told = words.StudyReady(
                order=order.order,
                studies=ready.studies,
                study=ready.study,
                patient=ready.patient,
                split=ready.split,
                instances=ready.instances,
                made_by=ready.made_by,
            )
            outcome = self._core.call(words.STUDY, told, timeout_s=3600.0).outcome
            if outcome == "disk_full":
                raise NoRoom("no room left for core")
            if outcome == "stopped":
                raise Stopped

        return run_import(
            order,
            keys=keys,
            rooms=self._rooms,
            workers=partial(WorkerProcesses, jobs=wishes.workers),
            take=take,
            give_up=work.kind == "give_up",
            read_text=wishes.read_pixel_text,
            log=LogForm("intake", logging_.level, logging_.format),
            allowed=partial(self._check_source, order),
        )

    def _failed(self, order: IngestOrder, error: str, *, hint: str = "", again: bool = False) -> words.IngestEnd:
        """Destroy all of it; how many originals that were, and why."""
        key = None
        with suppress(CloisterError):  # without its key, what is sealed is destroyed all the same
            key = read_raw_key(self._config.paths.quarantine_key)
        destroyed = destroy_import(order.order, self._rooms, key)
        return words.IngestEnd(order=order.order, destroyed=destroyed, error=error, hint=hint, again=again)

    def _check_source(self, order: IngestOrder) -> None:
        """Links on the way are followed before they are judged: a link out of a root leads out of it."""
        source, state = (Path(os.path.realpath(path)) for path in (order.source, self._config.state_dir))
        roots = [os.path.realpath(root) for root in self._config.intake.source_roots]
        if not any(source.is_relative_to(root) for root in roots):
            raise UsageFault(
                "the folder is under none of the configured source roots", hint="see [intake] source_roots"
            )
        if source.is_relative_to(state) or state.is_relative_to(source):
            raise UsageFault("the node's own state folder is no source", hint="bring data in from a folder of its own")

    def _tell(self, order: str, progress: Progress) -> None:
        told = words.IngestProgress(order=order, stage=progress.stage, done=progress.done, total=progress.total)
        if not self._core.call(words.PROGRESS, told).go_on:
            raise Stopped

    def _end(self, report: words.IngestEnd) -> None:
        self._core.call(words.REPORT, report, timeout_s=3600.0)
        self._rooms.note(report.order).unlink(missing_ok=True)
        if not report.waiting:
            shutil.rmtree(self._rooms.handover / report.order, ignore_errors=True)


def _names(folder: Path) -> set[str]:
    """The imports that have something in a folder, staging included."""
    found = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
    return {re.sub(r"^\.(.*)\.(partial|destroyed)$", r"\1", name) for name in found}


def _is_full(error: Exception) -> bool:
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and is_full(error)


def _leave(*_signal: object) -> None:
    """End at once, in the middle of whatever it is: an order that was broken off continues at the next start."""
    os._exit(0)
