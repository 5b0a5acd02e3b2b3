"""Attacks on what crosses: each ends with the run's model unmoved by it, and a line that says what was tried."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from federation.client.objects import FlowerCodec
from federation.client.ports import OutgoingReply
from federation.hub.flower.grid import to_record
from mediator.errors import CloisterError
from mediator.signatures import open_signed
from mediator.types import Instruction, Kind
from tests.federation.ground import Town, model
from tests.federation.rogue_hub import RogueHub
from tests.federation.test_reading import ODD
from tests.sim.core import FakeCore
from tests.sim.rogue_link import RogueLink

METRICS = {"auc": 0.5, "loss": 0.1, "num-examples": 10}


def packed(records: RecordDict) -> tuple[str, dict[str, bytes]]:
    return records.object_id, {key: nested.deflate() for key, nested in get_all_nested_objects(records).items()}


async def attack(town: Town, run: str, act: Any) -> dict[str, Any]:
    """Let a rogue link of one site answer the first evaluation by `act(rogue, core, instruction, context)`."""
    rogue, core = RogueLink(town.link_config("aachen")), town.core("aachen")
    try:
        await asyncio.to_thread(rogue.fleet.activate, 0)
        town.submit(run, sites=("aachen",), rounds=1)
        task = await rogue.pull()
        instruction = open_signed(Instruction, task.signed, core.instruction_keys).document
        await act(rogue, core, instruction, task.reply_context)
        history = await town.settled(run)
    finally:
        await rogue.close()
    assert history["state"] == "stopped" and history["completed_round"] == -1
    return history["rounds"][0]["refusals"][0]


def honest(core: FakeCore, instruction: Instruction, context: bytes) -> tuple[OutgoingReply, str, Mapping[str, bytes]]:
    root, objects = FlowerCodec().encode(Kind.EVALUATE, {}, METRICS)
    return core.wrap(instruction, context, root, objects), root, objects


async def test_a_reply_without_an_envelope_is_dropped(town: Town) -> None:
    async def act(rogue: RogueLink, core: FakeCore, instruction: Instruction, context: bytes) -> None:
        _, root, objects = honest(core, instruction, context)
        await rogue.push(context, root, objects)

    refusal = await attack(town, "no-envelope", act)
    assert (refusal["outcome"], refusal["code"]) == ("dropped", "no_envelope")


async def test_another_reply_than_the_enveloped_one_is_dropped(town: Town) -> None:
    async def act(rogue: RogueLink, core: FakeCore, instruction: Instruction, context: bytes) -> None:
        outgoing, _, _ = honest(core, instruction, context)
        await rogue.post(str(outgoing.envelope))
        await rogue.push(context, *FlowerCodec().encode(Kind.EVALUATE, {}, METRICS | {"auc": 0.9}))

    assert (await attack(town, "other-reply", act))["code"] == "root_mismatch"


async def test_an_object_that_no_envelope_names_is_not_even_fetched(town: Town) -> None:
    async def act(rogue: RogueLink, core: FakeCore, instruction: Instruction, context: bytes) -> None:
        outgoing, root, objects = honest(core, instruction, context)
        await rogue.post(str(outgoing.envelope))
        hidden = b"ArrayChunk  11\x00a patient's"[:-1] + b"s"
        extra = {hashlib.sha256(hidden).hexdigest(): hidden}
        await rogue.push(context, root, objects, extra)

    assert (await attack(town, "extra-object", act))["code"] == "objects_unnamed"


async def test_free_text_in_an_error_reaches_nobody(town: Town) -> None:
    async def act(rogue: RogueLink, core: FakeCore, instruction: Instruction, context: bytes) -> None:
        await rogue.push_error(context, "the patient of bed 12")

    refusal = await attack(town, "free-text", act)
    assert (refusal["outcome"], refusal["code"]) == ("dropped", "unknown_code")


async def test_bytes_behind_a_tensor_end_at_the_hub_even_when_core_signed_them(town: Town) -> None:
    """A node's own core gone bad: the envelope is genuine, so the hub's strict reading is what is left."""

    def hide(core: FakeCore, instruction: Instruction, context: bytes) -> OutgoingReply | None:
        if instruction.task is not Kind.TRAIN:
            return None
        arrays = {}
        for name, array in model(1.0).items():
            plain = Array(np.asarray(array))
            arrays[name] = Array(plain.dtype, plain.shape, plain.stype, plain.data + b"hidden")
        metrics = MetricRecord({"loss": 0.1, "num-examples": 10})
        return core.wrap(instruction, context, *packed(RecordDict({"model": ArrayRecord(arrays), "metrics": metrics})))

    async with town.links(town.core("bergen", answer=hide)):
        town.submit("hidden-bytes", sites=("bergen",), rounds=1)
        history = await town.settled("hidden-bytes")
    assert history["completed_round"] == 0
    assert history["rounds"][1]["refusals"][0]["code"] == "malformed"


@pytest.mark.parametrize("change", ["extra tensor", "missing metric", "no examples", "a weight of 1e308"])
async def test_one_sites_odd_update_does_not_end_the_run_for_the_others(town: Town, change: str) -> None:
    def odd(core: FakeCore, instruction: Instruction, context: bytes) -> OutgoingReply | None:
        if instruction.task is not Kind.TRAIN:
            return None
        update, metrics = model(1.0), {"loss": 0.1, "num-examples": 10.0}
        if change == "extra tensor":
            update["layer.extra"] = np.zeros(3, dtype=np.float32)
        elif change == "missing metric":
            del metrics["loss"]
        else:  # of finite weights like this one the average would be none, for everybody
            metrics["num-examples"] = 0 if change == "no examples" else 1e308
        return core.wrap(instruction, context, *FlowerCodec().encode(Kind.TRAIN, update, metrics))

    run = f"odd-{change.replace(' ', '-')}"
    cores = [town.core("aachen"), town.core("bergen", answer=odd), town.core("coimbra")]
    async with town.links(*cores):
        town.submit(run, rounds=1, minimum_sites=2)
        history = await town.settled(run)
    assert history["state"] == "done"
    assert set(history["rounds"][1]["train"]) == {"aachen", "coimbra"}
    code = history["rounds"][1]["refusals"][0]["code"]
    assert code == ("model_mismatch" if change == "extra tensor" else "metrics_mismatch")


@pytest.mark.parametrize(
    "odd",
    [
        "a metric without a value",
        "an open bracket in the header",
        "another stype",
        "one chunk a million times",
    ],
)
async def test_one_sites_odd_bytes_do_not_end_the_run_for_the_others(town: Town, odd: str) -> None:
    """Signed by its own core, taken by the SuperLink: that reply is malformed, and the round is done with the two."""

    def answer(core: FakeCore, instruction: Instruction, context: bytes) -> OutgoingReply | None:
        if instruction.task is not Kind.TRAIN:
            return None
        objects: dict[str, bytes] = {}
        root = ODD[odd].parts[0].put(objects)
        return core.wrap(instruction, context, root, objects)

    run = f"bytes-{odd.replace(' ', '-')}"
    cores = [town.core("aachen"), town.core("bergen", answer=answer), town.core("coimbra")]
    async with town.links(*cores):
        town.submit(run, rounds=1, minimum_sites=2)
        history = await town.settled(run)
    assert history["state"] == "done" and history["attempt"] == 1, history
    assert set(history["rounds"][1]["train"]) == {"aachen", "coimbra"}
    assert history["rounds"][1]["missing"] == {"train": ["bergen"], "evaluate": []}
    refusals = [(each["site"], each["outcome"], each["code"]) for each in history["rounds"][1]["refusals"]]
    assert refusals == [("bergen", "dropped", "malformed")]


async def test_odd_bytes_of_a_site_without_an_envelope_do_not_end_the_run_for_the_others(town: Town) -> None:
    """A certificate and a Flower key are all that this needs: no envelope, no key of core's."""
    refused_by_the_superlink = {"outer": b"\xff\x00\xfe"}
    raws: list[dict[str, Any]] = [
        {"outer": b"Message  3\x00\xff\xff\xff"},  # no protobuf
        {"outer": b"Message " + b"ab" * 32 + b" 0\x00"},  # an object it does not bring
        refused_by_the_superlink,
    ]
    honest = [town.core("aachen"), town.core("coimbra")]
    rogue = RogueLink(town.link_config("bergen"))

    async def answer_oddly() -> None:
        for raw in raws:
            await rogue.push_raw((await rogue.pull()).reply_context, **raw)

    await asyncio.to_thread(rogue.fleet.activate, 0)
    async with town.links(*honest):
        town.submit("bytes-alone", rounds=1, minimum_sites=2)
        try:
            await asyncio.wait_for(answer_oddly(), 40)
            # what never comes is waited for, but not by the others: their replies are read meanwhile
            others = lambda history: len(history["rounds"]) > 1 and len(history["rounds"][1]["evaluate"]) == 2  # noqa: E731
            history = await town.until("bytes-alone", others)
        finally:
            await asyncio.to_thread(rogue.fleet.deactivate)
            await rogue.channel.close()
            rogue.fleet.close()
            town.hub.stop_run("bytes-alone")
            await town.settled("bytes-alone")
    assert history["state"] == "running" and history["attempt"] == 1, history
    assert [(each["site"], each["code"]) for entry in history["rounds"] for each in entry["refusals"]] == [
        ("bergen", "malformed"),
        ("bergen", "malformed"),
    ]
    assert not (town.folder / "hub.log").read_text().count("nobody foresaw")


async def test_the_link_pushes_nothing_that_core_did_not_sign(town: Town) -> None:
    """Somebody changes a spooled object between core and link: the hub hears one word, and no byte of it."""

    def tampered(core: FakeCore, instruction: Instruction, context: bytes) -> OutgoingReply:
        outgoing, root, _ = honest(core, instruction, context)
        (core.spool / str(outgoing.folder) / root).write_bytes(b"RecordDict  5\x00other")
        return outgoing

    async with town.links(town.core("coimbra", answer=tampered)):
        town.submit("tampered", sites=("coimbra",), rounds=1)
        history = await town.settled("tampered")
    assert history["rounds"][0]["refusals"][0]["code"] == "internal"


async def test_an_envelope_by_another_key_is_not_taken(town: Town) -> None:
    async def act(rogue: RogueLink, core: FakeCore, instruction: Instruction, context: bytes) -> None:
        core.release = town.keys["bergen"]
        outgoing, root, objects = honest(core, instruction, context)
        with pytest.raises(CloisterError):
            await rogue.post(str(outgoing.envelope))
        await rogue.push(context, root, objects)

    assert (await attack(town, "other-key", act))["code"] == "no_envelope"


# --- a hub that misbehaves ------------------------------------------------------------------------------------


async def test_a_replayed_instruction_is_refused_by_the_node(town: Town) -> None:
    core = town.core("aachen")
    rogue = RogueHub(town.folder / "hub.toml")
    async with town.links(core):
        town.submit("replayed", sites=("aachen",), rounds=1)
        assert (await town.settled("replayed"))["state"] == "done"
        served = len(core.released)
        refused = await asyncio.to_thread(rogue.replay, "aachen", "replayed")
    assert refused == "refused_instruction" and core.refused == ["instruction_replayed"]
    assert len(core.released) == served


async def test_an_instruction_by_another_key_is_refused_by_the_node(town: Town) -> None:
    core = town.core("aachen")
    rogue = RogueHub(town.folder / "hub.toml")
    signed = rogue.instruct("aachen", model())
    instruction = open_signed(Instruction, signed, core.instruction_keys).document
    async with town.links(core):
        forged = town.keys["bergen"].sign(instruction)
        refused = await asyncio.to_thread(rogue.send, "aachen", forged, model())
    assert refused == "refused_instruction" and not core.instructions


async def test_bytes_behind_a_tensor_from_the_hub_do_not_reach_core(town: Town) -> None:
    core = town.core("aachen")
    rogue = RogueHub(town.folder / "hub.toml")
    signed = rogue.instruct("aachen", model())
    plain = to_record(model())
    hiding = {name: Array(each.dtype, each.shape, each.stype, each.data + b"x") for name, each in plain.items()}
    async with town.links(core):
        assert await asyncio.to_thread(rogue.send, "aachen", signed, ArrayRecord(hiding)) == "refused_instruction"
        assert not core.instructions
        # nor does a model that says odd things of itself
        for odd in (
            {"w\ud800": plain["layer.bias"]},
            {"John Smith": plain["layer.bias"]},
            {"layer.bias": Array("float64", (10**400,), "numpy.ndarray", b"\x93NUMPY\x01\x00v\x00{'descr': (")},
        ):
            assert await asyncio.to_thread(rogue.send, "aachen", signed, ArrayRecord(odd)) == "refused_instruction"
        assert not core.instructions
        # the link goes on: the same with nothing hidden reaches core (whose answer the honest ingress then refuses)
        assert await asyncio.to_thread(rogue.send, "aachen", signed, plain) == "internal"
    assert len(core.instructions) == 1
