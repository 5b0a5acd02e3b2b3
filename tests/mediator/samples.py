"""One small, valid world: a permit, its acceptance, a run order, an instruction, a model. Tests change one thing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from mediator import tensors
from mediator.admission import AdmissionRequest, DatasetFacts, NodeFacts
from mediator.ledger import Ledger, Spending
from mediator.permit import (
    EnforcedPermit,
    compile_permit,
    open_acceptance,
    open_permit,
    open_revocations,
    open_run_order,
    schema_sha256,
)
from mediator.policy import Policy
from mediator.revocations import Revocations, take_up
from mediator.signatures import KeyRing, Signed, SigningKey, open_signed
from mediator.types import (
    Acceptance,
    ConfigField,
    DataPermit,
    Dtype,
    Instruction,
    Kind,
    MetricSpec,
    Person,
    PrivacyBudget,
    Resources,
    RevocationList,
    RunOrder,
    SiteDatasets,
    TensorSpec,
)


def key(name: str) -> SigningKey:
    """A test key, the same in every run."""
    return SigningKey(hashlib.sha256(f"cloister test key {name}".encode()).digest())


COMMITTEE, STEWARD, RESEARCHER, HUB, STRANGER = map(key, ("committee", "steward", "researcher", "hub", "stranger"))
COMMITTEE_RING = KeyRing([COMMITTEE.verify_key])
STEWARD_RING = KeyRing([STEWARD.verify_key])
HUB_RING = KeyRing([HUB.verify_key])

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
SITE = "hospital-a"
IMAGE = "sha256:" + "1" * 64
OTHER_IMAGE = "sha256:" + "2" * 64
VERSION = "sha256:" + "a" * 64
OTHER_VERSION = "sha256:" + "b" * 64

RESOURCES = Resources(
    cpus=1.0,
    memory_bytes=1 << 30,
    pids=64,
    wall_time_s=600,
    tmp_bytes=1 << 26,
    out_bytes=1 << 26,
    out_files=16,
    gpus=0,
)
TENSORS = (
    TensorSpec("head.bias", (2,), Dtype.F32),
    TensorSpec("head.weight", (2, 3), Dtype.F32),
    TensorSpec("norm.batches", (), Dtype.I64),
)


def model(scale: float = 1.0, batches: int = 7) -> bytes:
    """A model of the permit's schema."""
    return tensors.encode(
        {
            "head.bias": np.array([0.5, -0.25], dtype="<f4") * np.float32(scale),
            "head.weight": np.arange(6, dtype="<f4").reshape(2, 3) * np.float32(scale),
            "norm.batches": np.array(batches, dtype="<i8"),
        }
    )


MODEL = model()


def permit(**changes: Any) -> DataPermit:
    base = DataPermit(
        permit="lesions-2026",
        permit_version=2,
        supersedes=1,
        issuer=COMMITTEE.key_id,
        purpose="scientific research: lesion detection",
        legal_basis="EHDS Art. 68",
        project="lesions",
        not_before=NOW - DAY,
        expires=NOW + 30 * DAY,
        persons=(Person("researcher-1", "institute-1", RESEARCHER.verify_key.text),),
        tools=("torch",),
        conditions=("no-network", "clipped-updates"),
        kinds=(Kind.TRAIN, Kind.EVALUATE),
        images=(IMAGE,),
        datasets=(SiteDatasets(SITE, (VERSION,)), SiteDatasets("hospital-b", (OTHER_VERSION,))),
        columns=("age", "label"),
        tensors=TENSORS,
        config=(
            ConfigField("epochs", "int", 1, 5, ()),
            ConfigField("learning-rate", "float", 0.0, 1.0, ()),
            ConfigField("augment", "bool", None, None, ()),
            ConfigField("optimiser", "str", None, None, ("sgd", "adam")),
        ),
        metrics={
            "train": (MetricSpec("loss", "value", 0.0, 100.0, 4), MetricSpec("num-examples", "count", 0, 1e6, 0)),
            "evaluate": (MetricSpec("auc", "value", 0.0, 1.0, 3), MetricSpec("num-examples", "count", 0, 1e6, 0)),
        },
        clip_norm=1.0,
        count_threshold=10,
        privacy=None,
        maximum_rounds=3,
        byte_budget=1 << 20,
        minimum_studies=10,
        resources=RESOURCES,
    )
    return replace(base, **changes)


# under a privacy budget a metric has one permitted value
FIXED = (MetricSpec("num-examples", "count", 1, 1, 0),)
PRIVACY = PrivacyBudget(epsilon=8.0, delta=1e-5, noise_multiplier=1.0)
PRIVATE: Mapping[str, Any] = {"privacy": PRIVACY, "metrics": {"train": FIXED, "evaluate": FIXED}}


def signed_permit(document: DataPermit | None = None) -> Signed[DataPermit]:
    return open_permit(COMMITTEE.sign(document or permit()), COMMITTEE_RING)


def acceptance(of: Signed[DataPermit] | None = None, **changes: Any) -> Signed[Acceptance]:
    accepted = of or signed_permit()
    base = Acceptance(
        site=SITE,
        permit=accepted.document.permit,
        permit_version=accepted.document.permit_version,
        permit_sha256=accepted.sha256,
        expires=NOW + 20 * DAY,
        maximum_rounds=None,
        byte_budget=None,
        versions=None,
    )
    return open_acceptance(STEWARD.sign(replace(base, **changes)), STEWARD_RING)


def enforced(**changes: Any) -> EnforcedPermit:
    """The compiled permit, after `changes` to the committee's."""
    signed = signed_permit(permit(**changes))
    return compile_permit(signed, acceptance(signed))


def order(**changes: Any) -> RunOrder:
    base = RunOrder(
        run="run-1",
        permit="lesions-2026",
        permit_version=2,
        image=IMAGE,
        sites=(SITE, "hospital-b"),
        schema_sha256=schema_sha256(TENSORS),
        config={"epochs": 1, "learning-rate": 0.1},
        strategy="FedAvg",
        rounds=3,
        nonce="nonce-1",
        expires=NOW + 10 * DAY,
    )
    return replace(base, **changes)


def signed_order(document: RunOrder | None = None, of: DataPermit | None = None) -> Signed[RunOrder]:
    return open_run_order(RESEARCHER.sign(document or order()), [of or permit()])


def revoked(**changes: Any) -> Revocations:
    """What a node holds to that was sent exactly one list."""
    return take_up(None, open_revocations(COMMITTEE.sign(revocations(**changes)), COMMITTEE_RING))


def revocations(**changes: Any) -> RevocationList:
    return replace(RevocationList(number=5, issued=NOW - timedelta(hours=1), permits=("other-permit",)), **changes)


def instruction(**changes: Any) -> Instruction:
    base = Instruction(
        run="run-1",
        permit="lesions-2026",
        permit_version=2,
        site=SITE,
        round=1,
        task=Kind.TRAIN,
        attempt=1,
        config={"epochs": 1, "learning-rate": 0.1},
        model_sha256=hashlib.sha256(MODEL).hexdigest(),
        issued=NOW - timedelta(seconds=5),
        expires=NOW + timedelta(hours=1),
    )
    return replace(base, **changes)


POLICY = Policy(
    paused=False,
    kinds=frozenset(Kind),
    images=frozenset({IMAGE, OTHER_IMAGE}),
    resources=replace(RESOURCES, memory_bytes=1 << 33),
    max_revocation_age=DAY,
    epsilon_total=10.0,
)
UNSPENT = Spending(under_permit=None, under_all=None, had_budget=False)
DATASET = DatasetFacts(
    VERSION, "images", "lesions", NOW - DAY, train_studies=40, test_studies=20, withdrawn=False, spending=UNSPENT
)
FACTS = NodeFacts(
    site=SITE,
    newest_audit=NOW - timedelta(seconds=1),
    highest_revocation=5,
    siblings=(permit(),),
    datasets=(DATASET,),
)


def request(
    *,
    instruct: Mapping[str, Any] | None = None,
    grant: Mapping[str, Any] | None = None,
    accept: Mapping[str, Any] | None = None,
    ask: Mapping[str, Any] | None = None,
    **changes: Any,
) -> AdmissionRequest:
    """A request that is admitted, after changes to the instruction, permit, acceptance, order or the request itself.

    Every document is signed and opened for real after its change.
    """
    granted = permit(**(grant or {}))
    signed = signed_permit(granted)
    base = AdmissionRequest(
        instruction=open_signed(Instruction, HUB.sign(instruction(**(instruct or {}))), HUB_RING),
        model=MODEL,
        permit=signed,
        acceptance=acceptance(signed, **(accept or {})),
        order=open_run_order(RESEARCHER.sign(order(**(ask or {}))), [granted]),
        revocations=revoked(),
        policy=POLICY,
        facts=FACTS,
        ledger=Ledger(),
        now=NOW,
    )
    return replace(base, **changes)
