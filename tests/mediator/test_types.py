from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from mediator.grammar import check_digest, check_identifier, check_name
from mediator.types import (
    ConfigField,
    Dtype,
    MetricSpec,
    Person,
    PrivacyBudget,
    ReleasedObject,
    ReleaseEnvelope,
    Resources,
    SiteDatasets,
    TensorSpec,
)
from tests.mediator.samples import (
    NOW,
    RESOURCES,
    TENSORS,
    acceptance,
    instruction,
    order,
    permit,
    revocations,
)


@pytest.mark.parametrize("text", ["", "A", "-a", ".a", "a b", "a/b", "a\n", "é", "a" * 65])
def test_what_is_no_identifier(text: str) -> None:
    with pytest.raises(ValueError, match="1 to 64"):
        check_identifier(text, "x")


@pytest.mark.parametrize(
    "text", ["latest", "torch:latest", "sha256:12", "sha256:" + "A" * 64, "sha256:" + "0" * 64 + "\n"]
)
def test_an_image_by_tag_is_no_digest(text: str) -> None:
    with pytest.raises(ValueError, match="not a digest"):
        check_digest(text, "image")


@pytest.mark.parametrize("text", ["", "a b", "a\n", "né", "-x", "a" * 129, "a:b", '"'])
def test_what_may_not_name_a_tensor(text: str) -> None:
    with pytest.raises(ValueError, match="not a permitted name"):
        check_name(text, "x")


KEY = "0" * 64
MALFORMED: list[Callable[[], Any]] = [
    lambda: TensorSpec("__metadata__", (1,), Dtype.F32),
    lambda: TensorSpec("a", (0,), Dtype.F32),
    lambda: TensorSpec("a", (-1,), Dtype.F32),
    lambda: TensorSpec("a", ((1 << 31) + 1,), Dtype.F32),
    lambda: TensorSpec("a", (1,) * 9, Dtype.F32),
    lambda: MetricSpec("m", "value", 1.0, 0.0, 0),
    lambda: MetricSpec("m", "value", float("nan"), 1.0, 0),
    lambda: MetricSpec("m", "value", 0.0, 1.0, 7),
    lambda: MetricSpec("m", "count", 0.0, 1.0, 1),
    lambda: ConfigField("c", "str", None, None, ()),
    lambda: ConfigField("c", "bool", None, None, ("x",)),
    lambda: ConfigField("c", "bool", 0, 1, ()),
    lambda: ConfigField("c", "int", None, 1, ()),
    lambda: ConfigField("c", "float", 0, None, ()),
    lambda: ConfigField("c", "float", 1, 0, ()),
    lambda: ConfigField("c", "float", 0, float("nan"), ()),
    lambda: Person("s", "o", "short"),
    lambda: PrivacyBudget(0, 1e-5, 1),
    lambda: PrivacyBudget(1, 0, 1),
    lambda: PrivacyBudget(1, 1e-5, float("nan")),
    lambda: replace(RESOURCES, cpus=0),
    lambda: replace(RESOURCES, pids=0),
    lambda: replace(RESOURCES, gpus=-1),
    lambda: SiteDatasets("Site", ()),
    lambda: SiteDatasets("site", ("v1",)),
    lambda: permit(permit="No"),
    lambda: permit(images=("torch:latest",)),
    lambda: permit(tensors=TENSORS + TENSORS[:1]),
    lambda: permit(datasets=(SiteDatasets("a", ()), SiteDatasets("a", ()))),
    lambda: permit(config=(ConfigField("c", "bool", None, None, ()),) * 2),
    lambda: permit(persons=(Person("a", "o", KEY), Person("b", "o", KEY))),
    lambda: permit(metrics={"train": (MetricSpec("m", "value", 0, 1, 0),) * 2}),
    lambda: permit(metrics={"guess": ()}),
    lambda: permit(expires=permit().not_before),
    lambda: permit(permit_version=0, supersedes=None),
    lambda: permit(supersedes=2),
    lambda: permit(clip_norm=0.0),
    lambda: permit(clip_norm=float("nan")),
    lambda: permit(clip_norm=float("inf")),
    lambda: permit(count_threshold=0),
    lambda: permit(minimum_studies=0),
    lambda: permit(maximum_rounds=-1),
    lambda: permit(byte_budget=-1),
    lambda: acceptance(permit_sha256="x"),
    lambda: acceptance(versions=("v1",)),
    lambda: acceptance(maximum_rounds=-1),
    lambda: acceptance(byte_budget=-1),
    lambda: order(rounds=0),
    lambda: order(image="torch:latest"),
    lambda: order(schema_sha256="x"),
    lambda: order(sites=("Hospital A",)),
    lambda: order(strategy="Fed Avg"),
    lambda: order(nonce=""),
    lambda: revocations(number=0),
    lambda: instruction(round=-1),
    lambda: instruction(attempt=0),
    lambda: instruction(site="A"),
    lambda: instruction(model_sha256="x"),
    lambda: instruction(expires=instruction().issued),
    lambda: ReleasedObject("not a hash", 1),
    lambda: ReleasedObject(KEY, -1),
]


@pytest.mark.parametrize("build", MALFORMED, ids=range(len(MALFORMED)))
def test_a_value_that_makes_no_sense_cannot_be_built(build: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        build()


@pytest.mark.parametrize("objects", [(), (ReleasedObject("1" * 64, 1),), (ReleasedObject(KEY, 1),) * 2])
def test_an_envelope_lists_its_root_and_nothing_twice(objects: tuple[ReleasedObject, ...]) -> None:
    made = instruction()
    with pytest.raises(ValueError, match=r"root|twice"):
        ReleaseEnvelope("a", made.id, "p", 1, made.run, 1, made.task, KEY, objects, NOW)


def test_resources_are_within_only_when_every_limit_is() -> None:
    assert RESOURCES.within(RESOURCES)
    for field in fields(Resources):
        more = replace(RESOURCES, **{field.name: getattr(RESOURCES, field.name) + 1})
        assert not more.within(RESOURCES)
        assert RESOURCES.within(more)


def test_sizes_are_whole_numbers_that_do_not_overflow() -> None:
    spec = TensorSpec("a", (1 << 31,) * 8, Dtype.F64)
    assert spec.size_bytes == 1 << 251
    assert TensorSpec("a", (), Dtype.I32).size_bytes == 4


def test_an_instruction_is_named_for_run_round_task_and_attempt() -> None:
    assert instruction(round=2, attempt=3).id == "run-1/2/train/3"
