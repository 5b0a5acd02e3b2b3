"""Fields that joined a document later: what was signed before still opens, and every document has one form."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import pytest

from mediator import canonical
from mediator.admission import Admitted, admit
from mediator.errors import Malformed
from mediator.signatures import Signed
from mediator.types import ADDED, ContainerSpec, DataPermit
from tests.mediator import samples
from tests.mediator.samples import COMMITTEE, DAY, IMAGE, NOW, RESOURCES

GPUS = replace(RESOURCES, gpus=2, gpu_memory_bytes=16 << 30)
SPEC = ContainerSpec("job-1", "job", IMAGE, "/work/data", "/work/in", RESOURCES, NOW, NOW + DAY)


def test_a_permit_signed_before_gpus_had_a_memory_still_opens() -> None:
    permit = samples.permit()
    plain = canonical.to_plain(permit)
    assert "gpu_memory_bytes" not in plain["resources"] and permit.resources.gpu_memory_bytes == 0
    assert canonical.decode(DataPermit, canonical.dumps(plain)) == permit


def test_a_document_with_an_added_field_comes_back_as_it_was() -> None:
    for document in (
        replace(samples.permit(), resources=GPUS),
        SPEC,
        replace(SPEC, resources=GPUS, gpu_devices=("GPU-1", "MIG-2")),
    ):
        assert canonical.decode(type(document), canonical.encode(document)) == document


@pytest.mark.parametrize(("name", "value"), [("gpu_devices", []), ("gpu_device", ["GPU-1"])])
def test_a_second_way_to_write_a_document_is_refused(name: str, value: object) -> None:
    plain = {**canonical.to_plain(SPEC), name: value}
    with pytest.raises(Malformed):
        canonical.decode(ContainerSpec, canonical.dumps(plain))


def test_the_vectors_of_before_have_no_added_field() -> None:
    claims = (Path(__file__).parents[1] / "vectors" / "index.json").read_text()
    assert json.loads(claims) and "gpu_memory_bytes" not in claims


@pytest.mark.parametrize(
    "names", [("all",), ("void",), ("GPU-1,GPU-2",), ("GPU-1", "GPU-1"), ("GPU-" + "a" * 81,), ("",), ("0",)]
)
def test_a_name_that_could_mean_several_gpus_is_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="GPU"):
        replace(SPEC, resources=replace(RESOURCES, gpus=len(names)), gpu_devices=names)


def test_a_container_names_as_many_gpus_as_it_is_granted() -> None:
    for names in ((), ("GPU-1",), ("GPU-1", "GPU-2", "GPU-3")):
        with pytest.raises(ValueError, match="as many"):
            replace(SPEC, resources=GPUS, gpu_devices=names)
    with pytest.raises(ValueError, match="as many"):
        replace(SPEC, gpu_devices=("GPU-1",))


def test_a_gpu_has_no_negative_memory() -> None:
    with pytest.raises(ValueError, match="gpu_memory_bytes"):
        replace(RESOURCES, gpus=1, gpu_memory_bytes=-1)


@dataclass(frozen=True)
class _LaterPermit(DataPermit):
    """A permit as it may be one day."""

    maximum_epochs: int = field(default=0, metadata=ADDED)


def test_a_field_that_a_permit_gains_is_enforced_without_a_line_of_its_own() -> None:
    base = samples.permit()
    granted = _LaterPermit(**{each.name: getattr(base, each.name) for each in fields(base)}, maximum_epochs=7)
    signed = Signed[DataPermit](granted, COMMITTEE.key_id, COMMITTEE.sign(granted))
    accepted = samples.acceptance(signed, byte_budget=1 << 19)
    admitted = admit(replace(samples.request(), permit=signed, acceptance=accepted))
    assert isinstance(admitted, Admitted) and isinstance(admitted.permit.terms, _LaterPermit)
    assert (admitted.permit.terms.maximum_epochs, admitted.permit.terms.byte_budget) == (7, 1 << 19)
