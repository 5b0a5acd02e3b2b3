"""A desk with the sample dataset and image, and whatever permits, acceptances and run orders a test gives it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mediator.audit import Action, Verdict
from mediator.errors import HubCode
from mediator.jobs import JobState
from mediator.types import Kind
from node.core.context import event
from node.core.records import ChargeRow, InstructionRow, JobRow
from tests.mediator import samples
from tests.node.core.desk import Desk, eventually, learn, manifest
from tests.sim.runner import Behaviour

_ENDED = (JobState.RELEASED, JobState.FAILED, JobState.REFUSED, JobState.STOPPED)


class BudgetDesk(Desk):
    """A permit's runs are named by the test; every order has as many rounds as its permit."""

    def __init__(self, root: Path, behave: Behaviour = learn) -> None:
        super().__init__(root, behave)
        self.jobs.start()

    def _fill(self) -> None:
        self.documents.receive(samples.COMMITTEE.sign(samples.revocations()))
        with self.core.store.transaction(self.now) as tx:
            tx.approve_image(samples.IMAGE, "", event=event(Action.IMAGE_APPROVE, samples.IMAGE, Verdict.DONE))
        self.publish(samples.VERSION)

    def publish(self, version: str, dataset: str = "images") -> None:
        with self.core.store.transaction(self.now) as tx:
            published = event(Action.DATASET_PUBLISH, version, Verdict.DONE)
            whole = replace(manifest(), dataset_version=version, dataset=dataset)
            tx.add_dataset_version(whole, "d" * 64, f"lesions/{version[-4:]}", event=published)

    def grant(self, name: str, *runs: str, accept: dict[str, Any] | None = None, **changes: Any) -> None:
        """A permit, accepted, with an order for each run."""
        granted = samples.permit(permit=name, permit_version=1, supersedes=None, **changes)
        signed = samples.signed_permit(granted)
        self.documents.receive(signed.text)
        self.documents.receive(
            samples.acceptance(signed, **(accept or {})).text, by="data_steward", actor="data_steward"
        )
        for run in runs:
            order = samples.order(run=run, permit=name, permit_version=1, rounds=granted.maximum_rounds)
            self.documents.receive(samples.RESEARCHER.sign(order))

    def answer(
        self, permit: str, run: str, round_: int = 1, task: Kind = Kind.TRAIN, attempt: int = 1
    ) -> HubCode | None:
        """Have the hub ask, and wait for what it is told; None for a release."""
        self.ask(permit=permit, permit_version=1, run=run, round=round_, task=task, attempt=attempt)
        name = f"{run}/{round_}/{task.value}/{attempt}"
        eventually(lambda: self.row(name).state in _ENDED)
        return self.instruction(name).hub_code

    def row(self, instruction: str) -> JobRow:
        with self.core.store.read() as snapshot:
            (found,) = [row for row in snapshot.jobs(10_000) if row.instruction == instruction]
        return found

    def instruction(self, name: str) -> InstructionRow:
        with self.core.store.read() as snapshot:
            found = snapshot.instruction(name)
        assert found is not None
        return found

    def charged(self, permit: str) -> tuple[ChargeRow, ...]:
        with self.core.store.read() as snapshot:
            return snapshot.charges(permit)

    def close(self) -> None:
        self.jobs.stop()
        self.core.store.close()
