"""A permit for analyses and files that pass its rules. Tests change one thing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mediator.airlock.decide import AirlockRequest
from mediator.analysis import AnalysisRules, LabelSpec
from mediator.types import Kind, OutputFile
from tests.mediator import samples

RULES = AnalysisRules(
    split="train", types=("csv", "json"), files=4, size_bytes=100_000, rows=100, columns=12, digits=4, threshold=10,
    dominance_n=2, dominance_k=90.0, p_percent=10.0,
    labels=(LabelSpec("sex", ("f", "m")), LabelSpec("age", ("young", "middle", "old")), LabelSpec("stage", ("1", "2"))),
    reviewers=1,
)  # fmt: skip
GRANT: Mapping[str, Any] = {"kinds": (Kind.ANALYSE,), "analysis": RULES, "metrics": {}}
ORDER: Mapping[str, Any] = {"strategy": "local", "rounds": 1}
INSTRUCT: Mapping[str, Any] = {"task": Kind.ANALYSE, "model_sha256": hashlib.sha256(b"").hexdigest()}
PATIENTS = 200
PSEUDONYM = "9f86d081884c7d659a2feaa0c55ad015"

FREQUENCY = b"sex,age,patients\nf,young,20\nf,middle,30\nf,old,25\nm,young,15\nm,middle,35\nm,old,25\n"
MAGNITUDE = b"sex,patients,volume,top,second\nf,75,1000,80,70\nm,75,900,60,50\n"
SUMMARY = b'{"patients": 150, "auc": 0.8125, "mean_age": 63.2}'


def declared(name: str, what: str, **changes: Any) -> dict[str, Any]:
    """One entry of `outputs.json`."""
    base = {
        "name": name, "type": name.rpartition(".")[2], "what": what, "labels": [], "count": "patients", "value": None,
        "largest": [],
    }  # fmt: skip
    return base | changes


def frequency(name: str = "a.csv", *labels: str) -> dict[str, Any]:
    return declared(name, "frequency_table", labels=list(labels or ("sex", "age")))


def magnitude(name: str = "b.csv") -> dict[str, Any]:
    return declared(name, "magnitude_table", labels=["sex"], value="volume", largest=["top", "second"])


def summary(name: str = "c.json") -> dict[str, Any]:
    return declared(name, "estimates")


def outputs(*entries: Mapping[str, Any]) -> bytes:
    return json.dumps({"contract": 1, "files": list(entries)}).encode()


def request(entries: Sequence[Mapping[str, Any]], files: Mapping[str, bytes], **changes: Any) -> AirlockRequest:
    """A request with these files, declared so."""
    rules = replace(RULES, **changes.pop("rules", {}))
    left = [OutputFile("outputs.json", outputs(*entries)), *(OutputFile(name, raw) for name, raw in files.items())]
    base = AirlockRequest(
        site=samples.SITE, run="run-1", dataset_version=samples.VERSION, rules=rules, patients=PATIENTS,
        identifiers=frozenset({PSEUDONYM}), files=left, earlier=(),
    )  # fmt: skip
    return replace(base, **changes)
