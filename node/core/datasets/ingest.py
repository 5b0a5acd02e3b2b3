"""Bringing data in: core orders, intake works, core publishes. Core never sees an identified file."""

from __future__ import annotations

import hashlib
import logging
import queue
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from mediator import canonical
from mediator.audit import Action, Verdict
from mediator.deid.orders import IngestOrder
from mediator.errors import CloisterError, Malformed, NotNow, UsageFault
from mediator.manifests import ManifestV2
from node.core.context import Core, event
from node.core.datasets.publish import folder_of, publish
from node.core.datasets.removal import remove_unheld
from node.host.disk_errors import is_full

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Happened:
    """One line of an order's life, as the person who gave it sees it."""

    kind: Literal["progress", "published", "failed"]
    order: str
    stage: str = ""
    done: int = 0
    total: int = 0
    manifest: ManifestV2 | None = None
    error: str = ""
    hint: str = ""
    again: bool = False


@dataclass
class _Open:
    order: IngestOrder
    given_out: bool = False
    news: queue.Queue[Happened] = field(default_factory=queue.Queue)


class Ingests:
    """Orders that are under way. An order lives as long as core does: given again, it continues where it was."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._changed = threading.Condition()
        self._open: dict[str, _Open] = {}

    def give(self, make: Callable[[str], IngestOrder], actor: str) -> Iterator[Happened]:
        """Give an order to intake and follow it to its end. The audit record comes first."""
        order = make(f"ingest-{secrets.token_hex(6)}")
        self._check_name(order)
        about = f"ingest/{order.order}"
        with self._core.store.transaction(self._core.clock()) as tx:
            tx.record(event=event(Action.INGEST_ORDER, about, Verdict.ALLOWED, actor=actor))
        entry = _Open(order)
        with self._changed:
            self._open[order.order] = entry
            self._changed.notify_all()
        while True:
            news = entry.news.get()
            yield news
            if news.kind != "progress":
                return

    def _check_name(self, order: IngestOrder) -> None:
        """Before anything is taken in: a dataset belongs to one project."""
        with self._core.store.read() as snapshot:
            rows = snapshot.dataset_versions()
        if any(row.dataset == order.dataset and row.project != order.project for row in rows):
            raise UsageFault("a dataset of this name belongs to another project", hint="choose another --dataset")

    def follow(self, active: Callable[[], bool]) -> Iterator[IngestOrder]:
        """Orders for intake, those first that an intake before this one did not finish."""
        with self._changed:
            for entry in self._open.values():
                entry.given_out = False
        while active():
            with self._changed:
                waiting = [entry for entry in self._open.values() if not entry.given_out]
                if not waiting:
                    self._changed.wait(1.0)
                    continue
                waiting[0].given_out = True
            yield waiting[0].order

    def progress(self, order: str, stage: str, done: int, total: int) -> None:
        entry = self._open.get(order)
        if entry is not None:
            entry.news.put(Happened("progress", order, stage=stage, done=done, total=total))

    def ended(self, order: str, destroyed: int, error: str, hint: str, again: bool) -> None:
        """Intake is through: write down what became of the originals, then publish what it handed over.

        Raises `NotNow` where that could not be written down: the order stays open, and intake says it again.
        """
        with self._changed:
            entry = self._open.get(order)
        if entry is None:
            raise Malformed("no such ingest order is under way")
        about = f"ingest/{order}"
        with self._core.store.transaction(self._core.clock()) as tx:
            tx.record(event=event(Action.QUARANTINE_DESTROY, f"{about}/{destroyed}", Verdict.DONE))
            verdict = Verdict.FAILED if error else Verdict.DONE
            tx.record(event=event(Action.INGEST_REPORT, about, verdict))
        with self._changed:
            del self._open[order]
        if error:
            entry.news.put(Happened("failed", order, error=error, hint=hint, again=again))
            return
        last = Happened("failed", order, error="the node failed; core's log names the class of the error")
        try:
            last = Happened("published", order, manifest=self._publish(entry.order))
        except CloisterError as fault:
            last = Happened("failed", order, error=fault.message, hint=fault.hint, again=isinstance(fault, NotNow))
        except OSError as fault:
            if not is_full(fault):
                raise
            last = Happened("failed", order, error="the disk is full", again=True)
        finally:
            entry.news.put(last)  # whatever happened, somebody waits for it

    def _publish(self, order: IngestOrder) -> ManifestV2:
        core = self._core
        with core.datasets_lock:
            try:
                return self._publish_whole(order, core.clock())
            except BaseException:
                remove_unheld(core)
                raise

    def _publish_whole(self, order: IngestOrder, now: datetime) -> ManifestV2:
        core = self._core
        with core.store.read() as snapshot:
            known = {row.dataset_version: row for row in snapshot.dataset_versions()}
        older = [row for row in known.values() if row.dataset == order.dataset and not row.withdrawn]
        supersedes = older[-1].dataset_version if older else None
        handover = core.folders.handover / order.order
        manifest = publish(handover, core.folders.datasets, created=now, supersedes=supersedes)
        row = known.get(manifest.dataset_version)
        if row is not None and row.withdrawn is not None:
            raise UsageFault("exactly this version was published before, and withdrawn")
        digest = hashlib.sha256(canonical.encode(manifest)).hexdigest()
        published = event(Action.DATASET_PUBLISH, manifest.dataset_version, Verdict.DONE)
        try:
            with core.store.transaction(now) as tx:
                tx.add_dataset_version(manifest, digest, folder_of(manifest), event=published)
        except BaseException:
            if row is None:  # nobody knows of it
                shutil.rmtree(core.folders.datasets / folder_of(manifest), ignore_errors=True)
            raise
        return manifest
