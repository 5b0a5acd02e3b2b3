"""The data permits of the demo, as drafts: what the committee is asked to sign.

The field names are `mediator.types.DataPermit`'s; `cloister permit sign` checks every one of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

PROJECT = "lesion-demo"
GIB, MIB = 1 << 30, 1 << 20
CLIP_NORM = 10.0

# three containers share two cores; torch alone takes 300 MB
RESOURCES = {
    "cpus": 1.0, "memory_bytes": 2 * GIB, "pids": 256, "wall_time_s": 900, "tmp_bytes": 64 * MIB,
    "out_bytes": 64 * MIB, "out_files": 64, "gpus": 0,
}  # fmt: skip


def metric(name: str, kind: str, minimum: float, maximum: float, digits: int) -> dict[str, Any]:
    return {"name": name, "kind": kind, "minimum": minimum, "maximum": maximum, "digits": digits}


METRICS = {
    "train": [metric("loss", "value", 0, 100, 4), metric("num-examples", "count", 0, 1_000_000, 0)],
    "evaluate": [
        metric("auc", "value", 0, 1, 4),
        metric("loss", "value", 0, 100, 4),
        metric("num-examples", "count", 0, 1_000_000, 0),
    ],
}


# What the researcher orders, and the ranges that the committee grants for it.
# Small steps in batches of two: slow enough to be seen getting better in each of four rounds, fast enough to get there.
TRAINING = json.dumps({"epochs": 1, "learning-rate": 0.0005, "batch-size": 2, "seed": 7})


def number(name: str, kind: str, minimum: float, maximum: float) -> dict[str, Any]:
    return {"name": name, "type": kind, "minimum": minimum, "maximum": maximum, "choices": []}


CONFIG = [
    number("epochs", "int", 1, 20),
    number("learning-rate", "float", 0.00001, 1.0),
    number("batch-size", "int", 1, 256),
    number("seed", "int", 0, 1_000_000),
]
ROGUE_CONFIG = [
    {
        "name": "misbehave", "type": "str", "minimum": None, "maximum": None,
        "choices": ["extra-tensor", "trailing-bytes"],
    }
]  # fmt: skip


def draft(
    name: str,
    *,
    image: str,
    versions: Mapping[str, str],
    tensors: Sequence[Mapping[str, Any]],
    config: Sequence[Mapping[str, Any]],
    issuer: str,
    researchers: Sequence[str],
    maximum_rounds: int,
    byte_budget: int,
) -> dict[str, Any]:
    """A permit for one image on one dataset version per hospital.

    `issuer` is the signing key's id, `researchers` public keys (hex); `maximum_rounds` and `byte_budget` (bytes) count
    all runs under the permit at one node.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    return {
        "kind": "cloister.data-permit",
        "version": 1,
        "permit": name,
        "permit_version": 1,
        "supersedes": None,
        "issuer": issuer,
        "purpose": "show on generated images that a model learns while no image leaves",
        "legal_basis": "none needed: every person in these images was made up by a program",
        "project": PROJECT,
        "not_before": _utc(now - timedelta(minutes=5)),
        "expires": _utc(now + timedelta(days=1)),
        "persons": [
            {"subject": f"demo-researcher-{number}", "organisation": "demo institute", "public_key": key}
            for number, key in enumerate(researchers, start=1)
        ],
        "tools": ["torch"],
        "conditions": [
            "no-network",
            "aggregates-only",
            "clipped-updates",
            "small-counts-suppressed",
            "split-by-patient",
        ],
        "kinds": ["train", "evaluate"],
        "images": [image],
        "datasets": [{"site": site, "versions": [version]} for site, version in versions.items()],
        "columns": ["lesion"],
        "tensors": list(tensors),
        "config": list(config),
        "metrics": METRICS,
        "clip_norm": CLIP_NORM,
        "count_threshold": 10,
        "privacy": None,
        "maximum_rounds": maximum_rounds,
        "byte_budget": byte_budget,
        "minimum_studies": 20,
        "resources": RESOURCES,
    }


def _utc(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat() + "Z"
