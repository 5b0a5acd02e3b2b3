"""The zoo through the real hub, SuperLink, TLS and link: every model comes back whole, in the permit's order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from federation import control
from federation.client.objects import FlowerCodec
from federation.client.ports import OutgoingReply
from federation.hub import ingress
from mediator import tensors
from mediator.permit import schema_sha256
from mediator.signatures import KeyRing
from mediator.types import Instruction, Kind
from node.ipc import messages
from tests.federation.ground import COMMITTEE, RESEARCHER, Town, order, permit
from tests.mediator.test_sizes import longest, many
from tests.sim.core import FakeCore
from tests.sim.zoo import ZOO, Model, dense, listed, same, specs_of

SITES = ("aachen", "bergen")


def core(town: Town, site: str, model: Model, **manners: Any) -> FakeCore:
    ring = KeyRing([town.hub.instruction_key.verify_key])
    spool = town.folder / site / "spool"
    return FakeCore(site, town.keys[site], ring, specs_of(model), spool, **manners)


def submit(town: Town, name: str, model: Model, sites: Sequence[str] = SITES, **changes: Any) -> None:
    """A permit for this model, and a run under it."""
    specs = specs_of(model)
    town.hub.submit_permit(COMMITTEE.sign(permit(permit=name, tensors=specs)))
    asked = order(name, permit=name, sites=sites, schema_sha256=schema_sha256(specs), **changes)
    town.hub.submit_order(RESEARCHER.sign(asked), tensors.encode(model))


def moved(model: Model, by: float) -> dict[str, np.ndarray]:
    return {
        name: (array + by).astype(array.dtype) if array.dtype.kind == "f" else array for name, array in model.items()
    }


async def through(
    town: Town, name: str, model: Model, rounds: int, sites: Sequence[str] = SITES, timeout_s: float = 60.0
) -> Model:
    """The model after the last round; the first site adds 1 in each, the second 3."""
    cores = [core(town, site, model, value=value) for site, value in zip(sites, (1.0, 3.0), strict=False)]
    async with town.links(*cores):
        submit(town, name, model, sites, rounds=rounds)
        history = await town.settled(name, timeout_s)
    assert history["state"] == "done", history
    assert not any(entry["refusals"] for entry in history["rounds"])
    return tensors.parse(town.hub.checkpoints.model(name, rounds), specs_of(model))


@pytest.mark.parametrize("name", [name for name in ZOO if name != "dense"])
async def test_a_model_of_the_zoo_is_averaged_layer_by_layer(town: Town, name: str) -> None:
    model = ZOO[name]()
    averaged = await through(town, f"zoo-{name}", model, rounds=2)
    # each of the two rounds adds the mean of 1 and 3
    assert same(averaged, moved(moved(model, 2), 2))
    kept = town.hub.checkpoints.model(f"zoo-{name}", 2)
    assert kept == tensors.encode(averaged), "the hub keeps it in this order, too"


@pytest.mark.slow
async def test_more_tensors_than_the_signatures_library_opens_are_trained_and_leave(town: Town) -> None:
    """Its own limit was met at 514; every object is a request of its own, so many more are for patient people."""
    model = dense(520)
    assert len(model) > 514
    averaged = await through(town, "many", model, rounds=1, sites=SITES[:1], timeout_s=240)
    assert same(averaged, moved(model, 1))


async def test_a_reply_in_another_order_than_the_permits_is_dropped(town: Town) -> None:
    """Names, shapes and types are right; a strategy that reads models as lists would average one layer with another."""
    model = listed()

    def exchanged(self: FakeCore, instruction: Instruction, reply_context: bytes) -> OutgoingReply | None:
        if instruction.task is not Kind.TRAIN:
            return None
        backward: Mapping[str, np.ndarray] = dict(reversed(listed().items()))
        root, objects = FlowerCodec().encode(Kind.TRAIN, backward, {"loss": 0.5, "num-examples": 10})
        return self.wrap(instruction, reply_context, root, objects)

    async with town.links(core(town, "aachen", model), core(town, "bergen", model, answer=exchanged)):
        submit(town, "exchanged", model, rounds=1)
        history = await town.settled("exchanged")
    refusals = [(entry["site"], entry["code"]) for entry in history["rounds"][1]["refusals"]]
    assert history["state"] == "stopped" and refusals == [("bergen", "model_mismatch")]


# --- the largest there is -------------------------------------------------------------------------------------


async def test_the_largest_permit_reaches_a_site(town: Town) -> None:
    text = COMMITTEE.sign(permit(permit="largest", tensors=many(5_514)))
    site = core(town, "aachen", listed())
    async with town.links(site):
        town.hub.submit_permit(text)
        town.hub.notify()
        for _ in range(600):
            if text in site.documents:
                break
            await asyncio.sleep(0.05)
    assert text in site.documents


def test_the_largest_envelope_fits_every_message_on_its_way() -> None:
    """From core over its socket to the link, and from the link to the hub."""
    text = RESEARCHER.sign(longest(3 + 2 * 5_514))
    sent = control.encode(control.ReleaseMessage(envelope=text))
    assert len(sent) < ingress.MAX_BODY_BYTES and control.decode(control.ReleaseMessage, sent).envelope == text
    outgoing = OutgoingReply(instruction="i", reply_context=b"c" * (64 << 10), envelope=text, folder="f")
    assert messages.unpack(OutgoingReply, messages.pack(outgoing)) == outgoing
