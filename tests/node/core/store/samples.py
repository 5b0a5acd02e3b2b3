"""Documents and events for store tests, signed by a key made from fixed bytes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from mediator.audit import Action, Verdict
from mediator.signatures import KeyRing, Signed, SigningKey, open_signed
from mediator.types import (
    Acceptance,
    DataPermit,
    Instruction,
    Kind,
    Manifest,
    ReleasedObject,
    Resources,
    RevocationList,
    RunOrder,
    Study,
)
from node.core.records import AuditEvent, NewAirlockFile, NewCharge, NewRelease, NewShownCounts
from node.ipc.airlock import NewReview

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
KEY = SigningKey(bytes(range(32)))
RING = KeyRing([KEY.verify_key])
IMAGE = "sha256:" + "a" * 64
VERSION = "sha256:" + "b" * 64
HEX = "c" * 64


def event(action: Action = Action.ACCESS, object_: str = "node") -> AuditEvent:
    return AuditEvent("core", action, object_, Verdict.DONE)


def signed(document: Any) -> Signed[Any]:
    return open_signed(type(document), KEY.sign(document), RING)


def permit(version: int = 1, purpose: str = "research") -> DataPermit:
    return DataPermit(
        permit="p-1",
        permit_version=version,
        supersedes=None,
        issuer=KEY.key_id,
        purpose=purpose,
        legal_basis="EHDS Art. 68",
        project="lung",
        not_before=NOW,
        expires=NOW + timedelta(days=30),
        persons=(),
        tools=(),
        conditions=(),
        kinds=(Kind.TRAIN,),
        images=(IMAGE,),
        datasets=(),
        columns=(),
        tensors=(),
        config=(),
        metrics={},
        clip_norm=1.0,
        count_threshold=10,
        privacy=None,
        maximum_rounds=3,
        byte_budget=1 << 20,
        minimum_studies=1,
        resources=Resources(1.0, 1 << 30, 64, 600, 1 << 20, 1 << 20, 16, 0),
    )


def acceptance(rounds: int | None = None) -> Acceptance:
    return Acceptance("north", "p-1", 1, HEX, NOW + timedelta(days=9), rounds, None, None)


def run_order(run: str = "run-1", nonce: str = "n1") -> RunOrder:
    return RunOrder(run, "p-1", 1, IMAGE, ("north",), HEX, {}, "fedavg", 3, nonce, NOW + timedelta(days=1))


def revocations(number: int = 1, *permits: str) -> RevocationList:
    return RevocationList(number, NOW, permits)


def instruction(round_: int = 1, attempt: int = 1, run: str = "run-1") -> Instruction:
    until = NOW + timedelta(hours=1)
    return Instruction(run, "p-1", 1, "north", round_, Kind.TRAIN, attempt, {"lr": 0.1}, HEX, NOW, until)


def manifest(version: str = VERSION, supersedes: str | None = None) -> Manifest:
    studies = tuple(Study(f"s{n}", f"pat-{n % 2}", "train", f"studies/s{n}", 3) for n in range(3))
    return Manifest(
        dataset="ct",
        project="lung",
        site="north",
        dataset_version=version,
        created=NOW,
        supersedes=supersedes,
        profile="base",
        profile_fingerprint=HEX,
        engine_version="1",
        counts={"studies_out": 3},
        excluded={"burned_in": 1},
        columns={},
        studies=studies,
        files=(),
    )


def charge(round_: int = 1, task: Kind = Kind.TRAIN, size_bytes: int = 100, run: str = "run-1") -> NewCharge:
    return NewCharge("p-1", 1, run, round_, task, size_bytes, 0.25)


def release(attempt: int = 1, round_: int = 1) -> NewRelease:
    return NewRelease(
        instruction=instruction(round_, attempt).id,
        permit="p-1",
        permit_version=1,
        run="run-1",
        round=round_,
        task=Kind.TRAIN,
        attempt=attempt,
        model_sha256=HEX,
        root="d" * 64,
        objects=(ReleasedObject("e" * 64, 10), ReleasedObject("f" * 64, 32)),
        folder=f"run-1.{round_}.train",
        envelope="envelope-text",
    )


def airlock_file(file: str = "file-1") -> NewAirlockFile:
    return NewAirlockFile(file, "job-1", "run-1", "p-1", 1, "a.csv", 2, HEX, "d" * 64, "{}", b"a,b\n1,2\n")


def shown_counts(source: str = "run-1/1/train/1") -> NewShownCounts:
    return NewShownCounts(
        source, "p-1", "run-1", "round 1, train", Kind.TRAIN, VERSION, "train", True, '[["n",[],40,[]]]'
    )


def review(sha256: str = "e" * 64, file: str = "file-1") -> NewReview:
    return NewReview(sha256, file, "dr-a", "key-a", "approve", "safe", "text")


def other(document: Any, **changes: Any) -> Signed[Any]:
    return signed(replace(document, **changes))
