"""The vector files say what they say, and the generator still writes exactly these."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from mediator.audit_check import verify_log
from mediator.canonical import encode, from_plain
from mediator.datasets import decode_manifest, decode_study, study_root, version_id
from mediator.errors import CloisterError, Denied, Malformed
from mediator.permit import open_permit, open_run_order, schema_sha256
from mediator.release import tensors
from mediator.signatures import KeyRing, VerifyKey, open_signed, peek_kind
from mediator.types import (
    Acceptance,
    ContainerSpec,
    DataPermit,
    Instruction,
    Manifest,
    ReleaseEnvelope,
    RevocationList,
    RunOrder,
    TensorSpec,
)
from tests.vectors import make

INDEX: dict[str, Any] = json.loads((make.HERE / "index.json").read_bytes())
RINGS = {
    name: KeyRing([VerifyKey.from_text(key["public"])])
    for name, key in json.loads((make.HERE / "keys.json").read_bytes()).items()
}
CLASSES: dict[str, Any] = {
    cls.KIND: cls
    for cls in (DataPermit, Acceptance, RunOrder, Instruction, RevocationList, ReleaseEnvelope, ContainerSpec)
}


def _outcome(error: CloisterError) -> str:
    return error.reasons[0].code.value if isinstance(error, Denied) else error.code


def test_the_generator_writes_exactly_the_files_that_are_here() -> None:
    here = {
        str(path.relative_to(make.HERE)): path.read_bytes()
        for path in make.HERE.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".md")
    }
    assert make.build() == here


@pytest.mark.parametrize("entry", INDEX["documents"], ids=lambda entry: Path(entry["file"]).stem)
def test_a_document(entry: dict[str, str]) -> None:
    text = (make.HERE / entry["file"]).read_text().removesuffix("\n")
    stem = Path(entry["file"]).stem
    cls = CLASSES["cloister.data-permit" if stem.startswith("permit") else peek_kind(text)]
    if entry["outcome"] == "opens":
        assert open_signed(cls, text, RINGS[entry["key"]]).document
        return
    with pytest.raises((Denied, Malformed)) as caught:
        open_signed(cls, text, RINGS[entry["key"]])
    assert _outcome(caught.value) == entry["outcome"]


def test_the_three_signatures_belong_together() -> None:
    texts = {
        name: (make.HERE / f"documents/{name}.jws").read_text().strip()
        for name in ("permit", "acceptance", "run-order")
    }
    permit = open_permit(texts["permit"], RINGS["committee"])
    accepted = open_signed(Acceptance, texts["acceptance"], RINGS["steward"])
    order = open_run_order(texts["run-order"], [permit.document])
    assert accepted.document.permit_sha256 == permit.sha256
    assert order.document.schema_sha256 == schema_sha256(permit.document.tensors) == INDEX["tensors"]["schema_sha256"]


SCHEMA = [from_plain(TensorSpec, entry) for entry in INDEX["tensors"]["schema"]]


@pytest.mark.parametrize("entry", INDEX["tensors"]["files"], ids=lambda entry: Path(entry["file"]).stem)
def test_a_tensor_file(entry: dict[str, str]) -> None:
    raw = (make.HERE / entry["file"]).read_bytes()
    if entry["outcome"] == "passes":
        encoded = tensors.encode(tensors.parse(raw, SCHEMA))
        assert hashlib.sha256(encoded).hexdigest() == INDEX["tensors"]["released"]
        return
    with pytest.raises(Denied) as caught:
        tensors.parse(raw, SCHEMA)
    assert _outcome(caught.value) == entry["outcome"]


@pytest.mark.parametrize("entry", INDEX["audit"], ids=lambda entry: Path(entry["folder"]).name)
def test_an_audit_log(entry: dict[str, Any]) -> None:
    folder = make.HERE / entry["folder"]
    files = [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]
    witness = (make.HERE / "audit/witness.jsonl").read_bytes()
    alone = verify_log(files, RINGS["audit"])
    assert sorted({finding.fault.value for finding in alone.findings}) == entry["faults"]
    both = verify_log(files, RINGS["audit"], witness_lines=witness, witness_keys=RINGS["hub"])
    assert {finding.fault.value for finding in both.findings} == {*entry["faults"], *entry["also_with_witness"]}


@pytest.mark.parametrize("entry", INDEX["datasets"]["manifests"], ids=lambda entry: Path(entry["file"]).stem)
def test_a_manifest(entry: dict[str, str]) -> None:
    raw = (make.HERE / entry["file"]).read_bytes()
    if entry["outcome"] == "opens":
        manifest = decode_manifest(raw)
        assert encode(manifest) == raw
        if isinstance(manifest, Manifest):
            assert version_id(manifest.files) == manifest.dataset_version
        return
    with pytest.raises(CloisterError) as caught:
        decode_manifest(raw)
    assert _outcome(caught.value) == entry["outcome"]


@pytest.mark.parametrize("entry", INDEX["datasets"]["studies"], ids=lambda entry: Path(entry["file"]).stem)
def test_a_study(entry: dict[str, str]) -> None:
    raw = (make.HERE / entry["file"]).read_bytes()
    if entry["outcome"] == "opens":
        record = decode_study(raw, entry["root"])
        assert encode(record) == raw and study_root(record.files) == record.root
        return
    with pytest.raises(CloisterError) as caught:
        decode_study(raw, entry["root"])
    assert _outcome(caught.value) == entry["outcome"]
