from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediator import tensors
from mediator.errors import Code, Denied, IntegrityBroken
from mediator.release.decide import ReleaseRequest, envelope, noise_bytes, release
from mediator.sizes import reserve_bytes
from mediator.types import Dtype, Kind, OutputFile, PrivacyBudget, ReleasedObject, TensorSpec
from tests.mediator.samples import FIXED, MODEL, NOW, PRIVACY, PRIVATE, SITE, TENSORS, enforced, instruction, model
from tests.sim.zoo import Model, models, specs_of

TRAINED = model(scale=1.1, batches=9)
TRAIN_METRICS = json.dumps({"loss": 0.51234567, "num-examples": 40}).encode()
EVALUATE_METRICS = json.dumps({"auc": 0.81234567, "num-examples": 20}).encode()


def _train(**changes: Any) -> ReleaseRequest:
    base = ReleaseRequest(
        permit=enforced(),
        task=Kind.TRAIN,
        files=(OutputFile("model.safetensors", TRAINED), OutputFile("metrics.json", TRAIN_METRICS)),
        given=MODEL,
        given_sha256=hashlib.sha256(MODEL).hexdigest(),
        byte_limit=reserve_bytes(TENSORS, Kind.TRAIN),
    )
    return replace(base, **changes)


def _evaluate(**changes: Any) -> ReleaseRequest:
    return _train(task=Kind.EVALUATE, files=(OutputFile("metrics.json", EVALUATE_METRICS),), **changes)


def _refused(request: ReleaseRequest) -> list[Code]:
    with pytest.raises(Denied) as caught:
        release(request)
    assert "patient" not in str(caught.value)
    return [reason.code for reason in caught.value.reasons]


def _model(raw: bytes) -> tuple[OutputFile, OutputFile]:
    return (OutputFile("model.safetensors", raw), OutputFile("metrics.json", TRAIN_METRICS))


def test_a_trained_model_leaves_clipped_and_encoded_by_us() -> None:
    released = release(_train())
    assert tensors.encode(released.tensors) == released.model
    parsed, given = tensors.parse(released.model, TENSORS), tensors.parse(MODEL, TENSORS)
    assert parsed["norm.batches"] == 7  # integers leave as they came in
    norm = np.sqrt(sum(float(np.square(parsed[n].astype("f8") - given[n]).sum()) for n in ("head.bias", "head.weight")))
    assert 0.1 < norm <= 1.0
    assert released.metrics == {"loss": 0.5123, "num-examples": 40}
    assert released.metrics_json == b'{"loss":0.5123,"num-examples":40}'
    assert released.size_bytes == len(released.model) + len(released.metrics_json)


def test_evaluation_releases_metrics_and_no_model() -> None:
    released = release(_evaluate())
    assert (released.model, dict(released.tensors)) == (b"", {})
    assert released.metrics == {"auc": 0.812, "num-examples": 20}


def test_the_containers_own_bytes_never_leave() -> None:
    # the same values in the container's own spelling: spaces, another order, a padded header
    header = json.loads(TRAINED[8 : 8 + int.from_bytes(TRAINED[:8], "little")])
    text = json.dumps(dict(reversed(list(header.items()))), indent=3).encode() + b" " * 500
    body = TRAINED[8 + int.from_bytes(TRAINED[:8], "little") :]
    spelled = len(text).to_bytes(8, "little") + text + body
    assert release(_train(files=_model(spelled))).model == release(_train()).model


@pytest.mark.parametrize(
    "name", ["scan.dcm", "patient_17.json", "MODEL.SAFETENSORS", "model.safetensors.bak", "checkpoint", ""]
)
def test_a_file_the_contract_does_not_name(name: str) -> None:
    assert _refused(_train(files=(*_train().files, OutputFile(name, b"patient")))) == [Code.FILE_NOT_PERMITTED]


def test_a_model_smuggled_out_of_an_evaluation() -> None:
    assert _refused(replace(_evaluate(), files=(_train().files[0], *_evaluate().files))) == [Code.FILE_NOT_PERMITTED]


def test_the_contracts_own_marks_are_let_be_and_do_not_leave() -> None:
    marked = (*_train().files, OutputFile("DONE", b"patient"), OutputFile("progress.jsonl", b"patient 17"))
    assert release(_train(files=marked)).model == release(_train()).model
    assert b"patient" not in release(_train(files=marked)).model + release(_train(files=marked)).metrics_json


def test_a_file_that_stands_twice() -> None:
    assert _refused(_train(files=(*_train().files, _train().files[1]))) == [Code.FILE_NOT_PERMITTED]


def test_nothing_at_all_is_no_result() -> None:
    assert _refused(_train(files=())) == [Code.FILE_MISSING, Code.FILE_MISSING]
    assert _refused(replace(_evaluate(), files=())) == [Code.FILE_MISSING]


def test_every_reason_is_told_at_once() -> None:
    files = (
        OutputFile("metrics.json", b'{"loss":1,"num-examples":3,"patient":17}'),
        OutputFile("model.safetensors", TRAINED + b"patient 17"),
        OutputFile("patient", b""),
    )
    assert _refused(_train(files=files)) == [
        Code.FILE_NOT_PERMITTED, Code.METRIC_NOT_PERMITTED, Code.COUNT_BELOW_THRESHOLD, Code.TRAILING_BYTES
    ]  # fmt: skip


def test_a_permit_without_metrics_releases_none() -> None:
    permit = enforced(metrics={})
    assert _refused(_train(permit=permit)) == [Code.METRIC_NOT_PERMITTED]
    assert release(_train(permit=permit, files=(_train().files[0], OutputFile("metrics.json", b"{}")))).metrics == {}


def test_more_than_was_charged_does_not_leave() -> None:
    size = release(_train()).size_bytes
    assert release(_train(byte_limit=size))
    assert _refused(_train(byte_limit=size - 1)) == [Code.BYTES_EXHAUSTED]


def test_the_model_sent_in_is_the_one_measured_against() -> None:
    # who could exchange it would move the ball in which updates are permitted
    with pytest.raises(IntegrityBroken):
        release(_train(given=model(scale=5.0)))


def test_noise_comes_with_a_privacy_budget_and_from_the_bytes_given() -> None:
    permit = enforced(**PRIVATE)
    assert noise_bytes(permit) == 64
    assert noise_bytes(enforced()) == 0
    files = (_train().files[0], OutputFile("metrics.json", b'{"num-examples":40}'))
    one, two = (
        release(_train(permit=permit, files=files, noise=np.random.default_rng(seed).bytes(64))) for seed in (1, 2)
    )
    assert one.model != two.model
    with pytest.raises(ValueError, match="random bytes"):
        release(_train(permit=permit, files=files))


@pytest.mark.parametrize("kind", [Kind.TRAIN, Kind.EVALUATE])
@pytest.mark.parametrize(
    "said", [b'{"num-examples":40}', b'{"num-examples":9007199254740991,"auc":0.123456}', b"\xff" * 5000, b"", b"[[["]
)
def test_under_a_privacy_budget_no_number_of_the_job_leaves(kind: Kind, said: bytes) -> None:
    base = _train(permit=enforced(**PRIVATE), task=kind, noise=bytes(64))
    files = tuple(file for file in base.files if kind is Kind.TRAIN and file.name != "metrics.json")
    left = release(replace(base, files=(*files, OutputFile("metrics.json", said))))
    assert left.metrics_json == b'{"num-examples":1}'


def test_a_metric_with_a_choice_leaves_under_no_budget_even_if_the_permit_was_let_through() -> None:
    base = enforced()
    permit = replace(base, granted=replace(base.granted, privacy=PRIVACY))
    assert _refused(_train(permit=permit, noise=bytes(64))) == [Code.METRIC_UNPROTECTED]


# --- the envelope ---------------------------------------------------------------------------------------------

OBJECTS = (ReleasedObject("1" * 64, 100), ReleasedObject("2" * 64, 50))


def test_an_envelope_binds_the_objects_to_the_instruction() -> None:
    made = envelope(enforced(), instruction(), "2" * 64, OBJECTS, 150)
    assert (made.site, made.instruction, made.run, made.round, made.task) == (
        SITE, "run-1/1/train/1", "run-1", 1, Kind.TRAIN
    )  # fmt: skip
    assert (made.permit, made.permit_version, made.size_bytes) == ("lesions-2026", 2, 150)
    assert made.expires == instruction().expires
    long = instruction(expires=NOW + timedelta(days=999))
    assert envelope(enforced(), long, "2" * 64, OBJECTS, 150).expires == enforced().terms.expires


def test_objects_beyond_the_charge_get_no_envelope() -> None:
    with pytest.raises(Denied) as caught:
        envelope(enforced(), instruction(), "2" * 64, OBJECTS, 149)
    assert caught.value.reasons[0].code is Code.BYTES_EXHAUSTED


@pytest.mark.parametrize("shapes", [[()], [(1,)] * 60, [(3, 100)] * 5, [(1 << 21, 2)]])
def test_the_reserve_covers_our_encoding(shapes: list[tuple[int, ...]]) -> None:
    specs = [TensorSpec(f"{number:0128d}", shape, Dtype.F32) for number, shape in enumerate(shapes)]
    raw = tensors.encode({spec.name: np.ones(spec.shape, "<f4") for spec in specs})
    assert len(raw) + 4096 <= reserve_bytes(specs, Kind.TRAIN)
    assert reserve_bytes(specs, Kind.EVALUATE) == 8192


# --- the permit's own order -----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(models(), st.data(), st.booleans())
def test_whatever_order_a_container_writes_in_its_model_leaves_in_the_permits(
    found: Model, data: st.DataObject, noisy: bool
) -> None:
    """Noise is drawn tensor by tensor; it moves values, and no tensor."""
    specs, given_model = specs_of(found), tensors.encode(found)
    base, privacy = enforced(), PrivacyBudget(1.0, 1e-5, 1e-9) if noisy else None
    metrics = {"train": FIXED} if noisy else base.granted.metrics
    granted = replace(base.granted, tensors=specs, clip_norm=1000.0, privacy=privacy, metrics=metrics)
    permit = replace(base, granted=granted)
    written = tensors.encode({name: found[name] for name in data.draw(st.permutations(list(found)))})
    released = release(
        _train(
            permit=permit,
            files=_model(written),
            given=given_model,
            given_sha256=hashlib.sha256(given_model).hexdigest(),
            byte_limit=1 << 30,
            noise=np.random.default_rng(3).bytes(noise_bytes(permit)),
        )
    )
    assert list(released.tensors) == list(tensors.parse(released.model, specs)) == list(found)
    header = json.loads(released.model[8 : 8 + int.from_bytes(released.model[:8], "little")])
    assert list(header) == list(found)
    for name, array in released.tensors.items():
        assert array.shape == found[name].shape and np.allclose(array, found[name], atol=1e-3)
