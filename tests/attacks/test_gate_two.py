"""Data hidden in an answer, by a real container on the real engine, and gate 2's word on what came out of it.

One container gives every answer (in a node the first refusal destroys it); the files are what the broker copied.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from mediator.errors import Code, Denied
from mediator.ports import JobEvent
from mediator.release.decide import Released, ReleaseRequest, release
from mediator.sizes import reserve_bytes
from mediator.types import Kind, OutputFile
from tests.attacks.surroundings import nothing_else_changes
from tests.containers.bench import Bench, image_id, until
from tests.mediator.samples import MODEL, TENSORS, enforced

pytestmark = pytest.mark.engine

Answer = Callable[[str], tuple[OutputFile, ...]]

REFUSED = {
    "extra-tensor": Code.TENSOR_NOT_PERMITTED, "missing-tensor": Code.TENSOR_MISSING,
    "trailing-bytes": Code.TRAILING_BYTES, "header-gap": Code.TENSOR_OFFSETS, "header-lies": Code.TENSOR_SHAPE,
    "header-too-long": Code.HEADER_TOO_LARGE, "header-of-notes": Code.HEADER_TOO_LARGE,
    "name-twice": Code.HEADER_MALFORMED, "overlap": Code.TENSOR_OFFSETS, "metadata": Code.METADATA_NOT_PERMITTED,
    "wrong-dtype": Code.TENSOR_DTYPE, "wrong-shape": Code.TENSOR_SHAPE, "not-a-number": Code.NOT_FINITE,
    "payload-in-nan": Code.NOT_FINITE, "extra-metric": Code.METRIC_NOT_PERMITTED,
    "text-metric": Code.METRICS_MALFORMED, "not-a-number-metric": Code.METRICS_MALFORMED,
    "metric-twice": Code.METRICS_MALFORMED, "whole-metric": Code.METRIC_OUT_OF_RANGE,
    "text-in-metrics": Code.METRICS_MALFORMED, "nested-metric": Code.METRICS_MALFORMED,
    "large-metrics": Code.METRICS_TOO_LARGE, "deep-metrics": Code.METRICS_TOO_LARGE,
}  # fmt: skip


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answer]:
    bench = Bench.make(Path(tmp_path_factory.mktemp("rogue")), image_id("cloister-job-rogue"))
    broker = bench.broker()
    asked = iter(range(1, 1000))

    def ask(name: str) -> tuple[OutputFile, ...]:
        task = next(asked)
        bench.give("job", task, model=MODEL, misbehave=name)
        assert until(events, "done", "exited") == JobEvent("done", task=task)
        return tuple(broker.finalise("job", task))

    try:
        broker.prepare(bench.sign(bench.spec()))
        with nothing_else_changes(bench, broker) as around:
            events = broker.execute("job")
            around.before = around.look()
            yield ask
    finally:
        broker.clean([])


def decide(files: tuple[OutputFile, ...]) -> Released:
    return release(
        ReleaseRequest(
            permit=enforced(),
            task=Kind.TRAIN,
            files=files,
            given=MODEL,
            given_sha256=hashlib.sha256(MODEL).hexdigest(),
            byte_limit=reserve_bytes(TENSORS, Kind.TRAIN),
        )
    )


@pytest.mark.parametrize("attack", [*REFUSED])
def test_what_is_hidden_in_an_answer_is_refused_by_name(answer: Answer, attack: str) -> None:
    with pytest.raises(Denied) as caught:
        decide(answer(attack))
    assert REFUSED[attack] in [reason.code for reason in caught.value.reasons]
    assert "atient" not in f"{caught.value}" and "17" not in f"{caught.value}"


def test_bits_in_numbers_too_small_to_matter_are_flushed(answer: Answer) -> None:
    released = decide(answer("denormals"))
    values = np.concatenate([array.reshape(-1) for array in released.tensors.values()])
    assert not np.any((values != 0) & (np.abs(values) < np.finfo(np.float32).tiny))


def test_bits_in_the_sign_of_zero_are_gone(answer: Answer) -> None:
    released = decide(answer("negative-zeros"))
    assert not any(np.signbit(array[array == 0]).any() for array in released.tensors.values())


def test_a_huge_update_is_clipped_to_the_permits_norm(answer: Answer) -> None:
    released, given = decide(answer("huge-update")), load(MODEL)
    floats = [name for name, array in given.items() if array.dtype.kind == "f"]
    moved = np.concatenate([(released.tensors[name] - given[name]).reshape(-1) for name in floats])
    assert 0 < np.linalg.norm(moved.astype(np.float64)) <= enforced().terms.clip_norm * (1 + 1e-6)


def test_digits_beyond_the_permits_precision_are_cut_off(answer: Answer) -> None:
    """A hundred bits of a patient in the digits of a loss: what leaves has the permit's digits and no more."""
    released = decide(answer("long-metric"))
    spec = next(spec for spec in enforced().terms.metrics["train"] if spec.name == "loss")
    assert json.loads(released.metrics_json)["loss"] == round(0.123456789012345, spec.digits)
    assert len(repr(released.metrics["loss"])) <= spec.digits + 2


def test_an_honest_answer_leaves_all_the_same(answer: Answer) -> None:
    assert decide(answer("none")).metrics == {"loss": 0.5, "num-examples": 64}
