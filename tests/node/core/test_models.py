"""The zoo through a node's core: from the instruction to the signed envelope and the spool that the link delivers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from flwr.app import RecordDict
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from safetensors.numpy import load, save

from federation.hub.flower.grid import to_tensors
from mediator import tensors
from mediator.audit import Action, Verdict
from mediator.jobs import JobState
from mediator.permit import schema_sha256
from mediator.signatures import KeyRing, open_signed
from mediator.types import ReleaseEnvelope
from node.core.context import event
from tests.mediator import samples
from tests.node.core.desk import METRICS, RELEASE, Desk, eventually, manifest
from tests.sim.zoo import ZOO, Model, same, specs_of


def fill(desk: Desk, model: Model) -> None:
    """Everything a node needs to take part under a permit for this model."""
    granted = samples.permit(tensors=specs_of(model), byte_budget=1 << 30)
    desk.documents.receive(samples.COMMITTEE.sign(granted))
    desk.documents.receive(samples.acceptance(samples.signed_permit(granted)).text, by="data_steward")
    desk.documents.receive(samples.RESEARCHER.sign(samples.order(schema_sha256=schema_sha256(granted.tensors))))
    desk.documents.receive(samples.COMMITTEE.sign(samples.revocations()))
    with desk.core.store.transaction(desk.now) as tx:
        tx.approve_image(samples.IMAGE, "", event=event(Action.IMAGE_APPROVE, samples.IMAGE, Verdict.DONE))
        published = event(Action.DATASET_PUBLISH, samples.VERSION, Verdict.DONE)
        tx.add_dataset_version(manifest(), "d" * 64, "lesions/a", event=published)


@pytest.mark.parametrize("name", ZOO)
def test_a_model_of_the_zoo_is_handed_over_named_and_leaves_in_the_permits_order(tmp_path: Path, name: str) -> None:
    model, told = ZOO[name](), list[list[str]]()

    def behave(task: Mapping[str, Any], given: bytes) -> Mapping[str, bytes]:
        """Hands back what it was given, through a writer that sorts."""
        told.append(task["tensors"])
        return {"metrics.json": METRICS["train"], "model.safetensors": save(load(given))}

    desk = Desk(tmp_path, behave, documents=False)
    fill(desk, model)
    desk.jobs.start()
    try:
        assert desk.ask(tensors.encode(model)) is None
        eventually(lambda: desk.job().state is JobState.RELEASED, within_s=120)
        assert told == [list(model)]
        row = next(desk.outbox.follow(lambda: True))
        assert row.envelope is not None and row.folder is not None
        envelope = open_signed(ReleaseEnvelope, row.envelope, KeyRing([RELEASE.verify_key])).document
        spooled = {path.name: path.read_bytes() for path in (desk.root / "spool" / row.folder).iterdir()}
        assert spooled.keys() == {entry.id for entry in envelope.objects}
        records = inflate_object_from_contents(envelope.root, spooled)
        assert isinstance(records, RecordDict) and same(to_tensors(records.array_records["model"]), model)
    finally:
        desk.jobs.stop()
        desk.core.store.close()
