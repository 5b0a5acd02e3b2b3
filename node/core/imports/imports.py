"""Bringing data in: core orders, intake works, core publishes. Core never sees an identified file.

1. An order is a row before anybody works on it (`mediator.imports`), so it goes on whoever restarts.
2. Study by study intake hands over; core copies each to its own disk and records it, and only then intake forgets it.
3. At the end intake tells what became of the originals; core records that, then makes the version.
4. What met a defect of ours waits, its originals sealed, until a newer version or a person tries it again or gives up.

Whatever intake says may be said twice: nothing is recorded or published a second time.
"""

from __future__ import annotations

import logging
import queue
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from mediator import canonical
from mediator.audit import Action, Verdict
from mediator.datasets import HeldStudy
from mediator.errors import CloisterError, IntegrityBroken, Malformed, NotNow, UsageFault
from mediator.grammar import MAX_INTEGER, PSEUDONYM
from mediator.import_orders import IngestOrder
from mediator.imports import AFTER_RESTART, IMPORT_ENDED, TRANSITIONS, ImportState, ImportStep
from node.core.context import CORE, Core, event
from node.core.datasets.publish import take_study
from node.core.datasets.removal import remove_unheld
from node.core.imports.publish import publish_import
from node.core.records import AuditEvent, ImportRow, NewImport
from node.core.store.writes import Tx
from node.host.disk_errors import is_full
from node.ipc import intake as words
from node.ipc.imports import IngestHappened

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_PSEUDONYM = re.compile(PSEUDONYM)
_GIVEN_OUT: dict[ImportState, Literal["carry_out", "give_up", "destroy"]] = {
    ImportState.ORDERED: "carry_out",
    ImportState.TAKING_IN: "carry_out",
    ImportState.DEIDENTIFYING: "carry_out",
    ImportState.PUBLISHING: "carry_out",
    ImportState.GIVING_UP: "give_up",
    ImportState.STOPPING: "destroy",
}
# what a stage that intake begins makes of a row
_BEGUN: Mapping[str, Mapping[ImportState, tuple[ImportStep, ...]]] = {
    "take_in": {ImportState.ORDERED: (ImportStep.TAKE_IN,)},
    "deidentify": {
        ImportState.ORDERED: (ImportStep.TAKE_IN, ImportStep.DEIDENTIFY),
        ImportState.TAKING_IN: (ImportStep.DEIDENTIFY,),
    },
}
# nothing of it can have reached core
_FRESH = frozenset({ImportState.ORDERED, ImportState.TAKING_IN})
_SWEPT = re.compile(r"ingest-[0-9a-f]{12}|unknown")
_OUR_FAILURE = "the node failed; core's log names the class of the error"
_WAITS = "try again with a newer version, or give these studies up"


@dataclass(frozen=True)
class ImportEnd:
    """What an import's last message says."""

    error: str = ""
    hint: str = ""


class Imports:
    """All imports of this node. `software` is the version of Cloister: what waits is tried again by another one."""

    def __init__(self, core: Core, software: str) -> None:
        self._core = core
        self._software = software
        self._lock = threading.Lock()
        self._followers: dict[str, list[queue.SimpleQueue[IngestHappened]]] = {}
        self._given: set[tuple[str, str]] = set()

    # --- what the staff's verbs ask -----------------------------------------------------------------------------

    def give(self, make: Callable[[str], IngestOrder], actor: str) -> str:
        """Put an order on record; its name."""
        order = make(f"ingest-{secrets.token_hex(6)}")
        self._check_name(order)
        text = canonical.encode(order).decode("utf-8")
        said = f"{order.order}/defaced-by/{order.defaced_by}" if order.defaced_by else order.order
        new = NewImport(order.order, order.project, order.dataset, actor, text)
        with self._core.store.transaction(self._core.clock()) as tx:
            tx.add_import(new, event=self._event(Action.INGEST_ORDER, said, Verdict.ALLOWED, actor))
        return order.order

    def follow(self, name: str, active: Callable[[], bool]) -> Iterator[IngestHappened]:
        """What happens to an import, to the message that says how it ended, or waits."""
        mine: queue.SimpleQueue[IngestHappened] = queue.SimpleQueue()
        with self._lock:
            self._followers.setdefault(name, []).append(mine)
        try:
            row = self._row(name)
            if row.state in IMPORT_ENDED or row.state is ImportState.WAITING:
                yield self._last(row)
                return
            while active():
                try:
                    news = mine.get(timeout=_LOOK_S)
                except queue.Empty:
                    continue
                yield news
                if news.kind != "progress":
                    return
        finally:
            with self._lock:
                self._followers[name].remove(mine)
                if not self._followers[name]:
                    del self._followers[name]

    def listed(self) -> tuple[ImportRow, ...]:
        """The newest imports, oldest first."""
        with self._core.store.read() as snapshot:
            return snapshot.imports()

    def stop(self, name: str, actor: str) -> None:
        """End an import: intake destroys what it took in. The decision is on record before anything is done."""
        self._decide(name, ImportStep.STOP, Action.IMPORT_STOP, actor, "it cannot be stopped any more")

    def retry(self, name: str, actor: str) -> None:
        """Try what waits again."""
        self._decide(name, ImportStep.RETRY, Action.IMPORT_RETRY, actor, "nothing of it waits")

    def give_up(self, name: str, actor: str) -> None:
        """Destroy what waits, and publish the rest."""
        self._decide(name, ImportStep.GIVE_UP, Action.IMPORT_GIVE_UP, actor, "nothing of it waits")

    def _decide(self, name: str, step: ImportStep, action: Action, actor: str, otherwise: str) -> None:
        allowed = self._event(action, name, Verdict.ALLOWED, actor)
        self._given.difference_update({(name, kind) for kind in _GIVEN_OUT.values()})  # it is given out once more
        with self._core.store.transaction(self._core.clock()) as tx:
            row = tx.find_import(name)
            if row is None:
                raise UsageFault("there is no such import", hint="see: cloister node dataset imports")
            if (row.state, step) not in TRANSITIONS:
                raise UsageFault(f"the import is {row.state.value}: {otherwise}")
            tx.advance_import(name, step, event=allowed)

    def _check_name(self, order: IngestOrder) -> None:
        """Before anything is taken in: a dataset belongs to one project."""
        with self._core.store.read() as snapshot:
            owners = [(row.dataset, row.project) for row in snapshot.dataset_versions()]
            owners += [(row.dataset, row.project) for row in snapshot.imports(unfinished=True)]
        if any(dataset == order.dataset and project != order.project for dataset, project in owners):
            raise UsageFault("a dataset of this name belongs to another project", hint="choose another --dataset")

    # --- at the start -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """What an older version left waiting is tried again by this one."""
        with self._core.store.read() as snapshot:
            rows = snapshot.imports(unfinished=True)
        for row in rows:
            if row.state is ImportState.WAITING and row.tried_with != self._software:
                tried = self._event(Action.IMPORT_RETRY, row.name, Verdict.ALLOWED)
                with self._core.store.transaction(self._core.clock()) as tx:
                    tx.advance_import(row.name, ImportStep.RETRY, event=tried)

    # --- what intake asks ---------------------------------------------------------------------------------------

    def live(self) -> tuple[str, ...]:
        """Imports that have not ended: whatever else lies with intake belongs to nobody."""
        with self._core.store.read() as snapshot:
            return tuple(row.name for row in snapshot.imports(unfinished=True))

    def swept(self, name: str, destroyed: int) -> None:
        """Intake has destroyed what belonged to nobody. Raises `Malformed` for what no record can name."""
        if not _SWEPT.fullmatch(name) or not 0 <= destroyed <= MAX_INTEGER:
            raise Malformed("not an import's name and a number of originals")
        gone = self._event(Action.QUARANTINE_DESTROY, f"{name}/{destroyed}", Verdict.DONE)
        with self._core.store.transaction(self._core.clock()) as tx:
            tx.record(event=gone)

    def work(self, active: Callable[[], bool]) -> Iterator[words.Work]:
        """Imports for intake, oldest first: all that are under way, for an intake before this one may have died."""
        given = self._given = set()
        commits = -1
        while active():
            before, commits = commits, self._core.store.wait_for_commit(commits, _LOOK_S)
            if commits == before:
                continue
            with self._core.store.read() as snapshot:
                rows = snapshot.imports(unfinished=True)
            for row in rows:
                kind = _GIVEN_OUT.get(AFTER_RESTART[row.state])
                if kind is not None and (row.name, kind) not in given:
                    given.add((row.name, kind))
                    if (order := self._order(row)) is not None:
                        yield words.Work(kind, order, begun=row.state not in _FRESH)

    def _order(self, row: ImportRow) -> IngestOrder | None:
        """An import's order; one that cannot be read any more ends that import, and keeps no other waiting."""
        try:
            return canonical.decode(IngestOrder, row.order_text.encode("utf-8"))
        except Exception as error:  # noqa: BLE001 - it ends that import; its text may name a folder of patients
            log.error("the order of %s cannot be read: %s", row.name, type(error).__name__)
        try:
            with self._core.store.transaction(self._core.clock()) as tx:
                self._advance(tx, row, ImportStep.FAIL, Verdict.FAILED, error=_OUR_FAILURE)
        except IntegrityBroken as error:  # where it stands it has no such end: it stays
            log.error("%s stays as it is: %s", row.name, error.message)
        return None

    def progress(self, told: words.IngestProgress) -> bool:
        """Pass on how far an import is; whether it is to go on."""
        row = self._row(told.order)
        for step in _BEGUN.get(told.stage, {}).get(row.state, ()):
            with self._core.store.transaction(self._core.clock()) as tx:
                row = self._advance(tx, row, step, Verdict.DONE)
        self._tell(IngestHappened("progress", told.order, stage=told.stage, done=told.done, total=told.total))
        return row.state not in IMPORT_ENDED and row.state is not ImportState.STOPPING

    def take(self, ready: words.StudyReady) -> Literal["taken", "stopped", "disk_full"]:
        """Take a study to core's own disk, and record it. Raises `IntegrityBroken` for one that is not as told."""
        if not (_PSEUDONYM.fullmatch(ready.study) and _PSEUDONYM.fullmatch(ready.patient)):
            raise Malformed("a study is not named by its pseudonym")
        core, row = self._core, self._row(ready.order)
        if row.state not in (ImportState.DEIDENTIFYING, ImportState.GIVING_UP):
            return "stopped"
        with core.datasets_lock:
            with core.store.read() as snapshot:
                before = snapshot.import_study(row.name, ready.study)
            if before is not None:
                if (before.patient, before.split, before.instances) != (ready.patient, ready.split, ready.instances):
                    raise IntegrityBroken("a study was handed over twice, and differs")
                return "taken"
            source, project = core.folders.handover / row.name / ready.study, core.folders.datasets / row.project
            try:
                record = take_study(source, project, ready.study, ready.instances, ready.made_by, core.job_group)
            except OSError as fault:
                if not is_full(fault):
                    raise
                return "disk_full"
            held = HeldStudy(
                study=ready.study,
                patient=ready.patient,
                split=ready.split,
                instances=ready.instances,
                root=record.root,
                size_bytes=record.size_bytes,
                deidentification=record.deidentification,
            )
            taken = self._event(Action.STUDY_TAKE, f"{row.name}/{ready.study}", Verdict.DONE)
            with core.store.transaction(core.clock()) as tx:
                tx.take_import_study(row.name, ready.studies, held, event=taken)
        return "taken"

    def ended(self, end: words.IngestEnd) -> None:
        """Intake is through: write down what became of the originals, then publish what it handed over.

        Raises `NotNow` where that could not be written down, or the version not be made: the row stays, and intake
        says it again.
        """
        row = self._row(end.order)
        if row.state in IMPORT_ENDED or row.state is ImportState.WAITING:
            return  # said before
        if row.state is not ImportState.PUBLISHING:
            row = self._settle(row, end)
        if row.state is ImportState.PUBLISHING:
            row = self._publish(row)
        if row.state in (ImportState.FAILED, ImportState.STOPPED):
            self._clear()
        self._tell(self._last(row))

    def _settle(self, row: ImportRow, end: words.IngestEnd) -> ImportRow:
        with self._core.store.transaction(self._core.clock()) as tx:
            if end.waiting and row.state is ImportState.DEIDENTIFYING:
                waits: dict[str, str | int] = {"studies_waiting": end.waiting, "tried_with": self._software}
                return self._advance(tx, row, ImportStep.WAIT, Verdict.DONE, destroyed=end.destroyed, **waits)
            if end.waiting:
                return row  # stopped meanwhile: what waits is still to be destroyed
            gone = self._event(Action.QUARANTINE_DESTROY, f"{row.name}/{end.destroyed}", Verdict.DONE)
            tx.record(event=gone)
            if row.state is ImportState.STOPPING:
                done = self._event(Action.IMPORT_STOP, row.name, Verdict.DONE)
                return tx.advance_import(row.name, ImportStep.DESTROY, event=done, destroyed=end.destroyed)
            step, verdict = (ImportStep.FAIL, Verdict.FAILED) if end.error else (ImportStep.REPORT, Verdict.DONE)
            told = self._event(Action.INGEST_REPORT, row.name, verdict)
            if not end.error:  # a core that was restored from a backup hears of the end first
                for begin in _BEGUN["deidentify"].get(row.state, ()):
                    row = self._advance(tx, row, begin, Verdict.DONE)
            return tx.advance_import(
                row.name, step, event=told, destroyed=end.destroyed, error=end.error, hint=end.hint, not_now=end.again,
                studies_waiting=0,
            )  # fmt: skip

    def _publish(self, row: ImportRow) -> ImportRow:
        core = self._core
        try:
            with core.datasets_lock:
                manifest, digest, folder = publish_import(core, row)
                published = event(Action.DATASET_PUBLISH, manifest.dataset_version, Verdict.DONE)
                with core.store.transaction(core.clock()) as tx:
                    tx.add_dataset_version(manifest, digest, folder, event=published)
                    version = manifest.dataset_version
                    return self._advance(tx, row, ImportStep.PUBLISH, Verdict.DONE, dataset_version=version)
        except NotNow:
            raise  # the originals are gone and the studies are here: the version is made as soon as it can be
        except CloisterError as fault:
            ended = ImportEnd(fault.message, fault.hint)
        except Exception as fault:  # noqa: BLE001 - whatever happened, the import ends and its person is told
            if isinstance(fault, OSError) and is_full(fault):
                raise NotNow("a version cannot be made: the disk is full", hint="make room") from None
            log.error("%s could not be published: %s", row.name, type(fault).__name__)
            ended = ImportEnd(_OUR_FAILURE)
        with core.store.transaction(core.clock()) as tx:
            return self._advance(tx, row, ImportStep.FAIL, Verdict.FAILED, error=ended.error, hint=ended.hint)

    # --- inside -------------------------------------------------------------------------------------------------

    def _clear(self) -> None:
        """Studies that only an import that came to nothing had."""
        try:
            with self._core.datasets_lock:
                remove_unheld(self._core)
        except (OSError, CloisterError) as fault:
            log.warning("left-over studies are removed at the next start: %s", type(fault).__name__)

    def _advance(
        self, tx: Tx, row: ImportRow, step: ImportStep, verdict: Verdict, **kept: str | int | bool
    ) -> ImportRow:
        about = self._event(Action.IMPORT_ADVANCE, f"{row.name}/{step.value}", verdict)
        return tx.advance_import(row.name, step, event=about, **kept)

    def _event(self, action: Action, name: str, verdict: Verdict, actor: str = CORE) -> AuditEvent:
        return event(action, f"ingest/{name}", verdict, actor=actor)

    def _row(self, name: str) -> ImportRow:
        with self._core.store.read() as snapshot:
            row = snapshot.find_import(name)
        if row is None:
            raise UsageFault("there is no such import", hint="see: cloister node dataset imports")
        return row

    def _tell(self, news: IngestHappened) -> None:
        with self._lock:
            for follower in self._followers.get(news.order, ()):
                follower.put(news)

    def _last(self, row: ImportRow) -> IngestHappened:
        if row.state is ImportState.PUBLISHED and row.dataset_version is not None:
            with self._core.store.read() as snapshot:
                version = snapshot.dataset_version(row.dataset_version)
            counts, excluded = (version.counts, version.excluded) if version is not None else ({}, {})
            return IngestHappened(
                "published", row.name, dataset_version=row.dataset_version, counts=counts, excluded=excluded
            )
        if row.state is ImportState.WAITING:
            return IngestHappened("waiting", row.name, waiting=row.studies_waiting, hint=_WAITS)
        if row.state is ImportState.STOPPED:
            return IngestHappened("stopped", row.name, error="it was stopped")
        return IngestHappened("failed", row.name, error=row.error, hint=row.hint, again=row.not_now)
