"""From models to frozen rows, and nothing else: no model object ever leaves the store."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from mediator.errors import Code, HubCode
from mediator.jobs import JobState
from mediator.types import Kind, ReleasedObject
from node.core import records
from node.core.store import models

T = TypeVar("T")


def value_of(cls: type[T], model: models.NodeBase, **other: Any) -> T:
    """A row of class `cls`: its fields from the model's columns of the same names, those in `other` as given."""
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    return cls(**{name: other[name] if name in other else getattr(model, name) for name in names})


def revocation_list_row(model: models.RevocationListTable) -> records.RevocationListRow:
    return value_of(records.RevocationListRow, model, revoked=tuple(model.revoked))


def instruction_row(model: models.InstructionTable) -> records.InstructionRow:
    code = None if model.hub_code is None else HubCode(model.hub_code)
    return value_of(records.InstructionRow, model, task=Kind(model.task), hub_code=code)


def job_row(model: models.JobTable) -> records.JobRow:
    code = None if model.code is None else Code(model.code)
    return value_of(records.JobRow, model, task=Kind(model.task), state=JobState(model.state), code=code)


def release_row(model: models.ReleaseTable, instruction: models.InstructionTable) -> records.ReleaseRow:
    return value_of(
        records.ReleaseRow,
        model,
        task=Kind(model.task),
        objects=tuple(ReleasedObject(id_, size) for id_, size in model.objects),
        delivered=instruction.delivered,
    )


def dataset_row(
    model: models.DatasetVersionTable, dataset: models.DatasetTable, withdrawal: models.WithdrawalTable | None
) -> records.DatasetVersionRow:
    withdrawn = None if withdrawal is None else withdrawal.time
    return value_of(records.DatasetVersionRow, model, project=dataset.project, withdrawn=withdrawn)
