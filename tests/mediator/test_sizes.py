"""One limit both ways: what is signed opens, and what a release could not say is refused before the first round."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from federation.client.objects import FlowerCodec
from mediator import canonical, tensors
from mediator.admission import admit
from mediator.canonical import Document
from mediator.errors import Code, Denied, Malformed
from mediator.grammar import MAX_DOCUMENT_BYTES
from mediator.permit import compile_permit, unenforceable
from mediator.release.decide import envelope
from mediator.release.metrics import parse
from mediator.signatures import KeyRing, open_signed, peek_payload
from mediator.sizes import (
    CHUNK_BYTES,
    MAX_HEADER_BYTES,
    MAX_METRICS_BYTES,
    check_sizes,
    check_tensors,
    envelope_bytes,
    header_bytes,
    model_file_bytes,
    reserve_bytes,
)
from mediator.terms import ungrantable
from mediator.types import (
    DataPermit,
    Dtype,
    Kind,
    MetricSpec,
    ReleasedObject,
    ReleaseEnvelope,
    RevocationList,
    TensorSpec,
)
from tests.mediator import samples
from tests.mediator.samples import COMMITTEE, HUB
from tests.sim.zoo import ZOO, models, specs_of

METRICS = {"loss": 0.5, "num-examples": 12}


def many(count: int, letters: int = 40, shape: tuple[int, ...] = (32,)) -> tuple[TensorSpec, ...]:
    """`count` tensors with names of `letters` letters."""
    return tuple(TensorSpec(f"{number:07d}.".ljust(letters, "w"), shape, Dtype.F32) for number in range(count))


def longest(count: int) -> ReleaseEnvelope:
    objects = tuple(ReleasedObject(hashlib.sha256(bytes(number)).hexdigest(), 1 << 20) for number in range(count))
    return ReleaseEnvelope(
        "s" * 64, "r" * 64 + "/1/train/1", "p" * 64, 1, "r" * 64, 1, Kind.TRAIN, objects[0].id, objects,
        datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip


def opens(document: Document) -> bool:
    """Whether a document is signed; what is signed must open, and say the same."""
    try:
        text = COMMITTEE.sign(document)
    except Malformed:
        return False
    signed = open_signed(type(document), text, KeyRing([COMMITTEE.verify_key]))
    assert signed.document == document and peek_payload(text) == canonical.encode(document)
    return True


# --- what sign prints, open_signed opens ----------------------------------------------------------------------


@pytest.mark.parametrize("count", [513, 514, 727, 1100, 2500])
def test_a_permit_and_an_envelope_of_many_tensors_are_signed_and_opened(count: int) -> None:
    assert opens(samples.permit(tensors=many(count)))
    assert opens(longest(3 + 2 * count))


def test_at_the_limit_a_document_opens_and_a_byte_beyond_it_is_not_signed() -> None:
    def listed(letters: int) -> RevocationList:
        return samples.revocations(permits=("p" * 60,) * 16_642 + ("q" * letters,))

    room = MAX_DOCUMENT_BYTES - len(canonical.encode(listed(1))) + 1
    assert 1 < room < 64 and opens(listed(room))
    with pytest.raises(Malformed, match="over the limit"):
        COMMITTEE.sign(listed(room + 1))


_json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_config = st.dictionaries(st.text(max_size=8), _json, max_size=4)
_documents = st.one_of(
    st.builds(lambda config: lambda: samples.order(config=config), _config),
    st.builds(lambda config: lambda: samples.instruction(config=config), _config),
    st.builds(lambda count: lambda: samples.revocations(permits=("p" * 60,) * count), st.integers(0, 20_000)),
    st.builds(lambda count: lambda: longest(count), st.integers(1, 14_000)),
    st.builds(
        lambda count, letters: lambda: samples.permit(tensors=many(count, letters)),
        st.integers(0, 7_000), st.integers(9, 128),
    ),
    st.builds(lambda text: lambda: samples.permit(purpose=text), st.text()),
    st.builds(
        lambda number: lambda: samples.permit(maximum_rounds=number, byte_budget=number), st.integers(0, 1 << 70)
    ),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(_documents)
@example(lambda: samples.order(config={"list": [1]}))
@example(lambda: samples.order(config={"large": 1 << 60}))
@example(lambda: longest(11_500))
def test_what_is_signed_opens(make: Callable[[], Document]) -> None:
    try:
        document = make()
    except ValueError:  # no document at all
        return
    if opens(document):
        assert len(canonical.encode(document)) <= MAX_DOCUMENT_BYTES


# --- what a permit's tensors become ---------------------------------------------------------------------------


def released(specs: Sequence[TensorSpec]) -> ReleaseEnvelope:
    """The envelope of a release of this model, with the longest names there are and no two tensors alike."""
    model = {
        spec.name: np.full(spec.shape, number, tensors._NUMPY[spec.dtype]) for number, spec in enumerate(specs)
    }  # fmt: skip
    root, objects = FlowerCodec().encode(Kind.TRAIN, model, METRICS)
    name = "n" * 64
    base = samples.enforced()
    named = replace(base.granted, permit=name), replace(base.accepted, site=name, permit=name)
    permit = replace(base, granted=named[0], accepted=named[1])
    asked = samples.instruction(run=name, permit=name, task=Kind.TRAIN)
    return envelope(permit, asked, root, FlowerCodec().listing(objects), 1 << 40)


@settings(max_examples=60, deadline=None)
@given(models())
def test_no_envelope_is_longer_and_no_header_other_than_foretold(model: Any) -> None:
    specs = specs_of(model)
    assert len(canonical.encode(released(specs))) <= envelope_bytes(specs)
    assert int.from_bytes(tensors.encode(model)[:8], "little") == header_bytes(specs)


@pytest.mark.parametrize("name", ZOO)
def test_nor_for_the_zoo(name: str) -> None:
    specs = specs_of(ZOO[name]())
    assert len(canonical.encode(released(specs))) <= envelope_bytes(specs) <= MAX_DOCUMENT_BYTES
    assert int.from_bytes(tensors.encode(ZOO[name]())[:8], "little") == header_bytes(specs)


@pytest.mark.parametrize("elements", [CHUNK_BYTES // 4 - 64, CHUNK_BYTES // 4 - 32, CHUNK_BYTES // 4, CHUNK_BYTES])
def test_a_tensor_of_many_chunks_is_many_objects(elements: int) -> None:
    specs = (TensorSpec("w", (elements,), Dtype.F32),)
    assert len(canonical.encode(released(specs))) <= envelope_bytes(specs)


def most(shape: tuple[int, ...] = (32,), letters: int = 40) -> int:
    """The most tensors that a permit may hold."""
    low, high = 1, 1 << 20
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if check_tensors(many(middle, letters, shape)) else (middle, high)
    return low


def test_the_largest_model_that_is_permitted_leaves_and_the_next_is_refused_before_it_trains() -> None:
    count = most()
    assert count == 5_514, "what the manuals say"
    assert opens(longest(3 + 2 * count)) and not check_tensors(many(count))
    for refused in (many(count + 1), (TensorSpec("w", (1 << 31, 1 << 10), Dtype.F32),)):
        assert {reason.code for reason in check_tensors(refused)} == {Code.PERMIT_TOO_LARGE}
        signed = samples.signed_permit(samples.permit(tensors=refused))
        with pytest.raises(Denied) as caught:  # as a hospital's steward and gate 1 see it
            compile_permit(signed, samples.acceptance(signed))
        assert {reason.code for reason in caught.value.reasons} == {Code.PERMIT_TOO_LARGE}


# --- and what a reply weighs ----------------------------------------------------------------------------------


def metrics(count: int, letters: int, digits: int = 6) -> tuple[MetricSpec, ...]:
    return tuple(MetricSpec(f"m{n}".ljust(letters, "m"), "value", -1e300, 1e300, digits) for n in range(count))


def codes(permit: DataPermit) -> list[Code]:
    return [reason.code for reason in check_sizes(permit)]


@settings(max_examples=60, deadline=None)
@given(models(), st.integers(0, 250), st.integers(4, 128))
@example({}, 199, 4)
@example({}, 44, 128)
def test_a_reply_that_is_permitted_fits_what_the_ledger_is_charged(model: Any, count: int, letters: int) -> None:
    """Whatever its values are: a number with all its digits, and names as long as may be."""
    specs = metrics(count, letters)
    permit = samples.permit(tensors=specs_of(model), metrics={"train": specs, "evaluate": specs})
    if check_sizes(permit):
        return
    raw = json.dumps({spec.name: -1.2345678901234567e-300 for spec in specs}).encode()
    assert len(raw) <= MAX_METRICS_BYTES
    numbers = parse(raw.replace(b"e-300", b"e+30"), specs, 1)
    for kind, arrays in ((Kind.TRAIN, model), (Kind.EVALUATE, {})):
        _, objects = FlowerCodec().encode(kind, arrays, numbers)
        assert sum(map(len, objects.values())) <= reserve_bytes(permit.tensors, kind)


def test_a_reply_that_could_not_come_out_is_refused_before_anything_runs() -> None:
    fine = samples.permit()
    room = model_file_bytes(fine.tensors)
    assert codes(fine) == [] and room == len(samples.MODEL)
    small, enough = (replace(fine, resources=replace(fine.resources, out_bytes=room - less)) for less in (1, 0))
    assert codes(small) == [Code.PERMIT_TOO_LARGE] and codes(enough) == []
    assert codes(replace(small, kinds=(Kind.EVALUATE,), analysis=None)) == [], "which writes no model"
    heavy = (TensorSpec("w", (1 << 28,), Dtype.F32), TensorSpec("b", (1,), Dtype.F32))
    roomy = replace(fine, resources=replace(fine.resources, out_bytes=1 << 40))
    assert codes(replace(roomy, tensors=heavy[:1])) == [] and codes(replace(roomy, tensors=heavy)) == [
        Code.PERMIT_TOO_LARGE
    ], "no link takes a model of more than a gigabyte in"
    chatty = replace(fine, metrics={"train": metrics(45, 128)})
    assert codes(chatty) == [Code.PERMIT_TOO_LARGE]
    assert Code.PERMIT_TOO_LARGE in [reason.code for reason in ungrantable(chatty, COMMITTEE.key_id, samples.NOW)]
    for refused in (small, chatty):
        signed = samples.signed_permit(refused)
        with pytest.raises(Denied) as caught:
            compile_permit(signed, samples.acceptance(signed))
        assert [reason.code for reason in caught.value.reasons] == [Code.PERMIT_TOO_LARGE]
        signed_order = samples.signed_order(of=refused)
        asked = replace(samples.request(), permit=signed, acceptance=samples.acceptance(signed), order=signed_order)
        with pytest.raises(Denied) as caught:  # gate 1, for one that an earlier version took in
            admit(asked)
        assert Code.PERMIT_TOO_LARGE in [reason.code for reason in caught.value.reasons]


def test_a_header_longer_than_gate_2_reads_is_refused() -> None:
    long = many(5_200, letters=128, shape=(1, 1, 1, 1, 1, 1, 1, 32))
    assert header_bytes(long) > MAX_HEADER_BYTES and envelope_bytes(long) < MAX_DOCUMENT_BYTES
    assert [reason.code for reason in check_tensors(long)] == [Code.PERMIT_TOO_LARGE]


def test_names_that_are_places_stand_in_their_places() -> None:
    def named(*names: str) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name, (3,), Dtype.F32) for name in names)

    sorted_as_text = named(*sorted(str(number) for number in range(12)))
    assert [reason.code for reason in check_tensors(sorted_as_text)] == [Code.TENSOR_ORDER]
    assert Code.TENSOR_ORDER in [reason.code for reason in unenforceable(samples.permit(tensors=sorted_as_text))]
    for fine in (named(*map(str, range(12))), named("1", "2", "0.bias"), named("b", "a"), named("10", "2"), ()):
        assert check_tensors(fine) == []


def test_the_hub_signs_no_instruction_that_a_site_could_not_read() -> None:
    with pytest.raises(Malformed):
        HUB.sign(samples.instruction(config={"nested": {"a": 1}}))
