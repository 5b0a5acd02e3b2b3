"""The intake process: the only one that sees identified data."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mediator.deid.orders import IngestOrder
from mediator.errors import CloisterError, NotNow, UsageFault
from node.deid.pipeline import NoRoom
from node.deid.processes import WorkerProcesses
from node.deid.worker_settings import LogForm
from node.host.config import NodeConfig
from node.host.disk_errors import is_full
from node.host.keys import read_raw_key
from node.intake.batch import IntakeFolders, IntakeKeys, Progress, run_ingest
from node.ipc import imports as words
from node.ipc.channel import Client
from node.ipc.messages import Empty

log = logging.getLogger(__name__)

# at most four lines a second to core, whatever the number of files
_REPORT_EVERY_S = 0.25


def run(config: NodeConfig) -> None:
    """Carry out orders until SIGTERM; an order broken off is given again and continues."""
    # what is handed over is core's to read, by the folder's group; quarantine is closed by its own folder's mode
    os.umask(0o027)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    paths = config.paths
    intake = IntakeProcess(config, Client(paths.intake_socket))
    while True:
        try:
            intake.serve()
        except NotNow:
            time.sleep(0.5)  # core is starting or restarting


class IntakeProcess:
    """Takes one order after another from core."""

    def __init__(self, config: NodeConfig, core: Client) -> None:
        self._config = config
        self._core = core
        self._rooms = IntakeFolders(quarantine=config.paths.quarantine, handover=config.paths.handover)

    def serve(self) -> None:
        """Until core ends the stream. Raises `NotNow` while it is away."""
        for order in self._core.stream(words.ORDERS, Empty()):
            self._end(self._carry_out(order))

    def _carry_out(self, order: IngestOrder) -> words.IngestEnd:
        """How it ended. An error's text is ours: no path and no patient."""
        try:
            self._check_source(order)
            # read for each order: a key that was retired meanwhile must not live on in this process
            paths = self._config.paths
            keys = IntakeKeys(site=read_raw_key(paths.site_key), quarantine=read_raw_key(paths.quarantine_key))
            destroyed, told_s, stage = 0, 0.0, ""
            for progress in self._steps(order, keys):
                if progress.report is not None:
                    destroyed = progress.report.destroyed
                if progress.line:
                    log.info("%s: %s", order.order, progress.line)
                begins, stage = progress.stage != stage, progress.stage
                if begins or time.monotonic() - told_s > _REPORT_EVERY_S or progress.done == progress.total:
                    told_s = time.monotonic()
                    self._tell(order, progress)
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
        return words.IngestEnd(order=order.order, destroyed=destroyed)

    def _steps(self, order: IngestOrder, keys: IntakeKeys) -> Iterator[Progress]:
        """The order's steps, with workers as the configuration has them."""
        wishes, logging_ = self._config.intake, self._config.logging
        return run_ingest(
            order,
            keys=keys,
            rooms=self._rooms,
            workers=partial(WorkerProcesses, jobs=wishes.workers),
            read_text=wishes.read_pixel_text,
            log=LogForm("intake", logging_.level, logging_.format),
        )

    def _failed(self, order: IngestOrder, error: str, *, hint: str = "", again: bool = False) -> words.IngestEnd:
        destroyed = self._give_up(order)
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

    def _give_up(self, order: IngestOrder) -> int:
        """Destroy what an order left in quarantine; how many files that were."""
        room = self._rooms.quarantine / order.order
        files = sum(1 for path in (room / "files").rglob("*") if path.is_file()) if room.exists() else 0
        shutil.rmtree(room, ignore_errors=True)
        shutil.rmtree(self._rooms.handover / f".{order.order}.partial", ignore_errors=True)
        return files

    def _tell(self, order: IngestOrder, progress: Progress) -> None:
        self._core.call(
            words.PROGRESS,
            words.IngestProgress(order=order.order, stage=progress.stage, done=progress.done, total=progress.total),
        )

    def _end(self, report: words.IngestEnd) -> None:
        self._core.call(words.REPORT, report, timeout_s=3600.0)
        shutil.rmtree(self._rooms.handover / report.order, ignore_errors=True)


def _is_full(error: Exception) -> bool:
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and is_full(error)


def _leave(*_signal: object) -> None:
    """End at once, in the middle of whatever it is: an order that was broken off continues at the next start."""
    os._exit(0)
