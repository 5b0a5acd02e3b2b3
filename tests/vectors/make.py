"""Writes the vectors beside this file: `python -m tests.vectors.make`. Running it again changes nothing.

`index.json` says what each file is and what must come of it, so that another implementation can be held to them.
The keys are test keys: their seeds are in `keys.json`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mediator import canonical, tensors
from mediator.audit import (
    Action,
    AuditRecord,
    Verdict,
    checkpoint_name,
    encode_checkpoint,
    encode_line,
    segment_name,
    sign_checkpoint,
    witness_checkpoint,
)
from mediator.datasets import CLINICAL, HeldStudy, VersionAccount, manifest_of, study_record, version_id
from mediator.manifests import Deidentification, Split, StudyRecord
from mediator.permit import schema_sha256
from mediator.signatures import SigningKey
from mediator.tree import Frontier
from mediator.types import ContainerSpec, DatasetFile, Manifest, ReleasedObject, ReleaseEnvelope, Study
from tests.mediator import samples
from tests.mediator.samples import COMMITTEE, HUB, IMAGE, NOW, RESEARCHER, RESOURCES, SITE, STEWARD, STRANGER, TENSORS

HERE = Path(__file__).parent
Files = dict[str, bytes]
AUDIT, RELEASE, VERDICT = map(samples.key, ("audit", "release", "verdict"))
UNSIGNED_HEADER = b'{"alg":"none","typ":"cloister.data-permit"}'
KEYS = {
    "committee": COMMITTEE,
    "steward": STEWARD,
    "researcher": RESEARCHER,
    "hub": HUB,
    "audit": AUDIT,
    "release": RELEASE,
    "verdict": VERDICT,
    "stranger": STRANGER,
}


def build() -> Files:
    """Every vector file by its path below this folder."""
    documents, document_index = _documents()
    models, model_index = _tensors()
    logs, log_index = _logs()
    versions, version_index = _datasets()
    index = {"documents": document_index, "tensors": model_index, "audit": log_index, "datasets": version_index}
    keys = {
        name: {"seed": hashlib.sha256(f"cloister test key {name}".encode()).hexdigest(), "public": key.verify_key.text}
        for name, key in KEYS.items()
    }
    return documents | models | logs | versions | {"index.json": _pretty(index), "keys.json": _pretty(keys)}


def _pretty(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


# --- documents ------------------------------------------------------------------------------------------------


def _documents() -> tuple[Files, list[dict[str, str]]]:
    envelope = ReleaseEnvelope(
        site=SITE,
        instruction=samples.instruction().id,
        permit="lesions-2026",
        permit_version=2,
        run="run-1",
        round=1,
        task=samples.instruction().task,
        root="1" * 64,
        objects=(ReleasedObject("2" * 64, 140), ReleasedObject("1" * 64, 90)),
        expires=samples.instruction().expires,
    )
    spec = ContainerSpec("job-1", "job", IMAGE, "/w/job-1/data", "/w/job-1/in", RESOURCES, NOW, NOW + samples.DAY)
    permit = COMMITTEE.sign(samples.permit())
    head, payload, signature = permit.split(".")
    plain = canonical.to_plain(samples.permit())
    entries = [
        ("permit", "committee", "opens", permit),
        ("acceptance", "steward", "opens", STEWARD.sign(samples.acceptance().document)),
        ("run-order", "researcher", "opens", RESEARCHER.sign(samples.order())),
        ("instruction", "hub", "opens", HUB.sign(samples.instruction())),
        ("revocation-list", "committee", "opens", COMMITTEE.sign(samples.revocations())),
        ("release-envelope", "release", "opens", RELEASE.sign(envelope)),
        ("container-spec", "verdict", "opens", VERDICT.sign(spec)),
        ("permit-by-the-hub", "committee", "untrusted_key", HUB.sign(samples.permit())),
        ("permit-with-another-payload", "committee", "bad_signature",
         f"{head}.{_b64(canonical.dumps(plain | {'clip_norm': 1000}))}.{signature}"),
        ("permit-of-an-unknown-version", "committee", "unsupported_version",
         _jws(COMMITTEE, "cloister.data-permit", plain | {"version": 2})),
        ("permit-with-an-unknown-key", "committee", "malformed",
         _jws(COMMITTEE, "cloister.data-permit", plain | {"also": "this"})),
        ("permit-with-an-image-by-tag", "committee", "malformed",
         _jws(COMMITTEE, "cloister.data-permit", plain | {"images": ["torch:latest"]})),
        ("permit-signed-as-another-kind", "committee", "malformed", _jws(COMMITTEE, "cloister.run-order", plain)),
        ("permit-without-a-signature", "committee", "malformed",
         f"{_b64(UNSIGNED_HEADER)}.{payload}."),
    ]  # fmt: skip
    files = {f"documents/{name}.jws": text.encode() + b"\n" for name, _, _, text in entries}
    index = [{"file": f"documents/{name}.jws", "key": key, "outcome": outcome} for name, key, outcome, _ in entries]
    return files, index


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _jws(key: SigningKey, kind: str, payload: Any) -> str:
    """A well-signed JWS over anything."""
    header = canonical.dumps({"alg": "Ed25519", "kid": key.key_id, "typ": kind})
    head = f"{_b64(header)}.{_b64(canonical.dumps(payload))}"
    return f"{head}.{_b64(key.sign_bytes(head.encode()))}"


# --- tensors --------------------------------------------------------------------------------------------------


def _tensors() -> tuple[Files, dict[str, Any]]:
    good = samples.MODEL
    length = struct.unpack("<Q", good[:8])[0]
    header, body = json.loads(good[8 : 8 + length]), good[8 + length :]
    text = json.dumps(header)
    extra = header | {"patient": {"dtype": "F32", "shape": [1], "data_offsets": [40, 44]}}
    other = header | {"head.bias": header["head.bias"] | {"shape": [1, 2]}}
    double = header | {"head.bias": header["head.bias"] | {"dtype": "F64"}}
    gap = header | {"norm.batches": header["norm.batches"] | {"data_offsets": [40, 48]}}
    overlap = header | {"norm.batches": header["norm.batches"] | {"data_offsets": [0, 8]}}
    nan = np.array([np.nan, 0], "<f4").tobytes()
    entries = [
        ("canonical", "passes", good),
        ("spelled-otherwise", "passes", _file(json.dumps(header, indent=1) + "   ", body)),
        ("bytes-behind", "trailing_bytes", good + b"hidden"),
        ("bytes-between", "tensor_offsets", _file(json.dumps(gap), body[:32] + b"smuggled" + body[32:])),
        ("overlapping", "tensor_offsets", _file(json.dumps(overlap), body)),
        ("cut-short", "tensor_offsets", good[:-1]),
        ("extra-tensor", "tensor_not_permitted", _file(json.dumps(extra), body + b"\x00" * 4)),
        ("missing-tensor", "tensor_missing",
         _file(json.dumps({name: entry for name, entry in header.items() if name != "norm.batches"}), body[:32])),
        ("another-shape", "tensor_shape", _file(json.dumps(other), body)),
        ("another-dtype", "tensor_dtype", _file(json.dumps(double), body)),
        ("metadata", "metadata_not_permitted", _file(json.dumps({"__metadata__": {"note": "x"}} | header), body)),
        ("duplicate-key", "header_malformed", _file(text.replace("{", '{"head.bias":{},', 1), body)),
        ("header-not-utf-8", "header_malformed", _file(b"\xff" + text.encode(), body)),
        ("header-beyond-the-file", "header_malformed", struct.pack("<Q", 4096) + good[8:]),
        ("header-over-a-mebibyte", "header_too_large", struct.pack("<Q", (1 << 20) + 1) + good[8:]),
        ("not-a-number", "not_finite", _file(text, nan + body[8:])),
        ("empty", "header_malformed", b""),
    ]  # fmt: skip
    files = {f"tensors/{name}.safetensors": raw for name, _, raw in entries}
    index = {
        "schema": canonical.to_plain(TENSORS),
        "schema_sha256": schema_sha256(TENSORS),
        "released": hashlib.sha256(tensors.encode(tensors.parse(good, TENSORS))).hexdigest(),
        "files": [{"file": f"tensors/{name}.safetensors", "outcome": outcome} for name, outcome, _ in entries],
    }
    return files, index


def _file(header: str | bytes, body: bytes) -> bytes:
    text = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(text)) + text + body


# --- audit logs -----------------------------------------------------------------------------------------------


def _logs() -> tuple[Files, list[dict[str, Any]]]:
    lines = [_line(number) for number in range(1, 13)]
    good = _log(lines, (5, 10))
    segment = segment_name(1)
    witness = encode_checkpoint(witness_checkpoint(_signed(lines, 10), None, HUB))
    flipped = bytearray(good[segment])
    flipped[good[segment].index(b"run-1/2/") + len("run-")] ^= 1
    swapped = [*lines[:2], lines[3], lines[2], *lines[4:]]
    told_anew = [line.replace(b"refused", b"allowed") for line in lines]
    entries: list[tuple[str, Files, list[str], list[str]]] = [
        ("good", good, [], []),
        ("in-flight", good | {segment: good[segment][:-30]}, [], []),
        ("flipped-byte", good | {segment: bytes(flipped)}, ["root_mismatch"], ["rolled_back"]),
        ("removed-record", good | {segment: b"".join(lines[:3] + lines[4:])},
         ["record_sequence", "root_mismatch"], ["rolled_back"]),
        ("reordered-records", good | {segment: b"".join(swapped)},
         ["record_sequence", "root_mismatch"], ["rolled_back"]),
        ("truncated", good | {segment: b"".join(lines[:8])}, ["truncated"], ["rolled_back"]),
        ("unknown-file", good | {"notes.txt": b"hello\n"}, ["unknown_file"], []),
        ("rolled-back", _log(lines[:7], (5,)), [], ["rolled_back"]),
        ("told-anew-and-signed-again", _log(told_anew, (5, 10)), [], ["rolled_back"]),
    ]  # fmt: skip
    files = {f"audit/{name}/{file}": raw for name, log, _, _ in entries for file, raw in log.items()}
    index = [
        {"folder": f"audit/{name}", "faults": faults, "also_with_witness": more} for name, _, faults, more in entries
    ]
    return files | {"audit/witness.jsonl": witness}, index


def _line(number: int) -> bytes:
    verdict, code = (Verdict.REFUSED, "instruction_replayed") if number % 4 == 0 else (Verdict.ALLOWED, "")
    made = AuditRecord(
        number, NOW, "core", Action.TASK_ADMIT, f"run-1/{number}/train/1", "lesions-2026@2", verdict, code
    )
    return encode_line(made)


def _signed(lines: list[bytes], size: int) -> Any:
    tree = Frontier()
    for line in lines[:size]:
        tree = tree.append(line.removesuffix(b"\n"))
    return sign_checkpoint(SITE, tree, NOW, AUDIT)


def _log(lines: list[bytes], sizes: tuple[int, ...]) -> Files:
    checkpoints = {checkpoint_name(size): encode_checkpoint(_signed(lines, size)) for size in sizes}
    return checkpoints | {segment_name(1): b"".join(lines)}


# --- dataset versions -----------------------------------------------------------------------------------------


def _datasets() -> tuple[Files, dict[str, list[dict[str, str]]]]:
    made_by = Deidentification("eucaim", "f" * 64, "4")
    records = [study_record(_slices(number), made_by) for number in range(1, 4)]
    # of another engine, and named out of order: a version sorts
    records.append(study_record(_slices(4), Deidentification("eucaim", "e" * 64, "5")))
    studies = [_held(number, record) for number, record in zip((3, 1, 2, 4), records, strict=True)]
    columns = {"lesion": "double"}
    account = VersionAccount("images", "lesions", SITE, made_by, {"studies_in": 4}, {"burned_in": 1}, columns)
    table = _file_of(CLINICAL)
    good = manifest_of(account, studies[:3], [table], created=NOW, supersedes=None)
    mixed = manifest_of(account, studies, [table], created=NOW, supersedes=good.dataset_version, mixed=True)
    plain, study = canonical.to_plain(good), canonical.to_plain(records[0])
    first, *rest = plain["leaves"]
    manifests = [
        ("version-1", "opens", canonical.encode(_version_1(table))),
        ("version-2", "opens", canonical.encode(good)),
        ("version-2-mixed", "opens", canonical.encode(mixed)),
        ("version-2-with-another-split", "integrity_broken",
         canonical.dumps(plain | {"leaves": [[*first[:3], "test", *first[4:]], *rest]})),
        ("version-2-without-a-study", "integrity_broken", canonical.dumps(plain | {"leaves": rest})),
        ("version-2-out-of-order", "malformed", canonical.dumps(plain | {"leaves": [*rest, first]})),
        ("version-2-with-a-name", "malformed",
         canonical.dumps(plain | {"leaves": [[*first[:2], "Hartog", *first[3:]], *rest]})),
        ("version-2-with-an-unknown-key", "malformed", canonical.dumps(plain | {"also": "this"})),
        ("version-2-spelled-otherwise", "malformed", json.dumps(plain).encode()),
        ("version-3", "unsupported_version", canonical.dumps(plain | {"version": 3})),
    ]  # fmt: skip
    studies_index = [
        ("study", "opens", canonical.encode(records[0])),
        ("study-with-another-file", "integrity_broken",
         canonical.dumps(study | {"leaves": [*study["leaves"], ["0005.dcm", 1, "a" * 64]]})),
        ("study-of-another-root", "integrity_broken", canonical.encode(records[1])),
        ("study-with-a-path", "malformed",
         canonical.dumps(study | {"leaves": [["../0001.dcm", *study["leaves"][0][1:]], *study["leaves"][1:]]})),
    ]  # fmt: skip
    index = {
        "manifests": [{"file": f"datasets/{name}.json", "outcome": outcome} for name, outcome, _ in manifests],
        "studies": [
            {"file": f"datasets/{name}.json", "root": records[0].root, "outcome": outcome}
            for name, outcome, _ in studies_index
        ],
    }
    return {f"datasets/{name}.json": raw for name, _, raw in (*manifests, *studies_index)}, index


def _held(number: int, record: StudyRecord) -> HeldStudy:
    name, patient = _hash(f"study {number}")[:32], _hash(f"patient {number // 2}")[:32]
    split: Split = "train" if number < 3 else "unlabelled"
    return HeldStudy(name, patient, split, len(record.leaves), record.root, record.size_bytes, record.deidentification)


def _version_1(table: DatasetFile) -> Manifest:
    study, patient = _hash("study 1")[:32], _hash("patient 0")[:32]
    folder = f"studies/{study}"
    files = (table, *(replace(file, path=f"{folder}/{file.path}") for file in _slices(1)))
    return Manifest(
        dataset="images", project="lesions", site=SITE, dataset_version=version_id(files), created=NOW,
        supersedes=None, profile="eucaim", profile_fingerprint="f" * 64, engine_version="4",
        counts={"studies": 1, "train": 1}, excluded={"burned_in": 1}, columns={"lesion": "double"},
        studies=(Study(study, patient, "train", folder, 3),), files=files,
    )  # fmt: skip


def _slices(number: int) -> list[DatasetFile]:
    return [_file_of(f"{slice_:04d}.dcm", number) for slice_ in range(1, 4)]


def _file_of(path: str, number: int = 0) -> DatasetFile:
    return DatasetFile(path, 1000 + number, _hash(f"{path} of {number}"))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def main() -> None:
    for name, content in build().items():
        path = HERE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    main()
