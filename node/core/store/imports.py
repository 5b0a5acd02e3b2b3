"""Imports, as the store keeps them: read by `Reads`, changed by `Tx`."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING, cast

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from mediator import imports
from mediator.datasets import HeldStudy
from mediator.errors import IntegrityBroken
from mediator.imports import IMPORT_ENDED, ImportState, ImportStep
from mediator.manifests import Deidentification, Split
from node.core import records
from node.core.records import AuditEvent
from node.core.store import models
from node.core.store.rows import value_of

_ENDED = [state.value for state in IMPORT_ENDED]


class ImportReads:
    """What is asked about imports."""

    _session: Session

    def find_import(self, name: str) -> records.ImportRow | None:
        model = self._session.get(models.ImportTable, name)
        return None if model is None else _row(model)

    def imports(self, *, unfinished: bool = False, limit: int = 1000) -> tuple[records.ImportRow, ...]:
        """The newest imports, oldest first; with `unfinished` those that have not ended alone, all of them."""
        table = models.ImportTable
        if unfinished:
            query = select(table).where(table.state.not_in(_ENDED)).order_by(table.created, table.name)
            return tuple(map(_row, self._session.scalars(query)))
        newest = self._session.scalars(select(table).order_by(table.created.desc(), table.name.desc()).limit(limit))
        return tuple(map(_row, reversed(newest.all())))

    def import_studies(self, name: str) -> tuple[HeldStudy, ...]:
        """The studies taken for an import under way, in the order of their pseudonyms."""
        table = models.ImportStudyTable
        query = select(table).where(table.import_name == name).order_by(table.study)
        return tuple(map(_held, self._session.scalars(query)))

    def import_study(self, name: str, study: str) -> HeldStudy | None:
        model = self._session.get(models.ImportStudyTable, (name, study))
        return None if model is None else _held(model)

    def studies_being_imported(self, project: str, roots: Collection[str]) -> frozenset[str]:
        """Which of these studies, named by their roots, were taken for an import that has not ended."""
        table = models.ImportStudyTable
        query = select(table.root).where(table.project == project, table.root.in_(roots))
        return frozenset(self._session.scalars(query))


class ImportWrites(ImportReads):
    """What changes imports; a part of `Tx`, whose transaction and log these are."""

    if TYPE_CHECKING:
        now: datetime

        def _append(self, event: AuditEvent) -> None: ...
        def _add(self, model: models.NodeBase) -> None: ...

    def add_import(self, row: records.NewImport, *, event: AuditEvent) -> None:
        """Keep an order: from here on it is carried out, whatever ends in between."""
        self._append(event)
        fresh = {"studies": 0, "studies_done": 0, "studies_waiting": 0, "destroyed": 0, "error": "", "hint": ""}
        self._add(
            models.ImportTable(
                **vars(row), **fresh, state=ImportState.ORDERED.value, tried_with="", not_now=False,
                dataset_version=None, created=self.now, updated=self.now,
            )
        )  # fmt: skip

    def advance_import(
        self, name: str, step: ImportStep, *, event: AuditEvent, **kept: str | int | bool | None
    ) -> records.ImportRow:
        """Move an import along its table, and keep beside it what else is given. One that has ended keeps neither its
        order nor its studies. Raises `IntegrityBroken` for a step the table does not have in this state."""
        model = self._import(name)
        state = imports.advance(ImportState(model.state), step)
        self._append(event)
        model.state, model.updated = state.value, self.now
        for column, value in kept.items():
            setattr(model, column, value)
        if state in IMPORT_ENDED:
            model.order_text = ""
            self._session.execute(delete(models.ImportStudyTable).where(models.ImportStudyTable.import_name == name))
        self._session.flush()
        return _row(model)

    def take_import_study(self, name: str, studies: int, held: HeldStudy, *, event: AuditEvent) -> bool:
        """Keep a study that lies on core's disk. `studies`: how many the import has. False when it is kept already.

        Raises `IntegrityBroken` where another study was kept under its pseudonym, or the import has ended.
        """
        model = self._import(name)
        if ImportState(model.state) in IMPORT_ENDED:
            raise IntegrityBroken("the import has ended")
        before = self.import_study(name, held.study)
        if before is not None:
            if before != held:
                raise IntegrityBroken("a study was handed over twice, and differs")
            return False
        self._append(event)
        made_by = held.deidentification
        self._add(
            models.ImportStudyTable(
                import_name=name, study=held.study, project=model.project, patient=held.patient, split=held.split,
                instances=held.instances, root=held.root, size_bytes=held.size_bytes, profile=made_by.profile,
                profile_fingerprint=made_by.profile_fingerprint, engine_version=made_by.engine_version,
            )
        )  # fmt: skip
        model.studies, model.studies_done = studies, model.studies_done + 1
        model.updated = self.now
        self._session.flush()
        return True

    def _import(self, name: str) -> models.ImportTable:
        model = self._session.get(models.ImportTable, name)
        if model is None:
            raise IntegrityBroken("there is no such import")
        return model


def _row(model: models.ImportTable) -> records.ImportRow:
    return value_of(records.ImportRow, model, state=ImportState(model.state))


def _held(model: models.ImportStudyTable) -> HeldStudy:
    return HeldStudy(
        study=model.study,
        patient=model.patient,
        split=cast(Split, model.split),
        instances=model.instances,
        root=model.root,
        size_bytes=model.size_bytes,
        deidentification=Deidentification(model.profile, model.profile_fingerprint, model.engine_version),
    )
