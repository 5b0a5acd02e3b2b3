"""The folder in which the transcripts were typed: the same keys, files and drafts every time."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from mediator.canonical import to_plain
from mediator.signatures import SigningKey, VerifyKey
from tests.end_to_end.commands import CLOISTER, ENVIRONMENT
from tests.mediator import samples
from tests.sim.dicom import ct_slice, to_bytes

HERE = Path(__file__).parent
VECTORS = HERE.parent / "vectors"
IMAGE = "sha256:" + "1c" * 32
_SINCE, _UNTIL = datetime(2026, 1, 1, tzinfo=UTC), datetime(2056, 1, 1, tzinfo=UTC)
# What no two runs have in common: the clock, how long it took, a fresh number.
_CHANGING = [
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?"), "<time>"),
    (re.compile(r"(\bseconds\b\"?: )\d+(\.\d+)?"), r"\1<seconds>"),
    (re.compile(r"(\"nonce\": )\"[0-9a-f]+\""), r'\1"<nonce>"'),
]


def furnish(folder: Path) -> None:
    """Keys, a draft permit, a folder of slices, two copies of an audit log, a hub's configuration."""
    for number, name in enumerate(("committee", "researcher", "steward"), start=1):
        _key(folder, name, number)
    _draft(folder)
    _slices(folder / "src")
    (folder / "site.key").write_bytes(bytes(range(32)))
    (folder / "site.key").chmod(0o600)
    for name, kind in (("log", "good"), ("log-changed", "flipped-byte")):
        shutil.copytree(VECTORS / "audit" / kind, folder / name)
    shutil.copy(VECTORS / "audit" / "witness.jsonl", folder)
    told = json.loads((VECTORS / "keys.json").read_text())
    rings = (("audit", told["audit"]["public"]), ("witness", told["hub"]["public"]))
    (folder / "audit-keys.txt").write_text("".join(f"{name} {key}\n" for name, key in rings))
    (folder / "hub.toml").write_text(
        'version = 1\nname = "hub"\nstate_dir = "hub"\n[ingress]\nport = 8443\nhosts = ["localhost"]\n'
        f'[trust]\ncommittee_keys = ["{(folder / "committee.pub").read_text().strip()}"]\n'
    )


def _key(folder: Path, name: str, number: int) -> None:
    seed, path = bytes([number] * 32), folder / name
    key = SigningKey(seed)
    path.write_text(f"{seed.hex()}\n")
    path.chmod(0o600)
    (folder / f"{name}.pub").write_text(f"{key.verify_key.text}\n")


def _draft(folder: Path) -> None:
    committee, researcher = (
        VerifyKey.from_text((folder / f"{name}.pub").read_text().strip()) for name in ("committee", "researcher")
    )
    document = samples.permit(
        issuer=committee.key_id, images=(IMAGE,), not_before=_SINCE, expires=_UNTIL, maximum_rounds=20,
        persons=(samples.Person("researcher-1", "institute", researcher.text),),
    )  # fmt: skip
    plain = {"kind": document.KIND, "version": document.VERSION, **to_plain(document)}
    (folder / "draft.json").write_text(json.dumps(plain))


def _slices(source: Path) -> None:
    """Three slices of one study, one whose header says that somebody's name is burned in, and a letter."""
    source.mkdir()
    for number in range(1, 4):
        dataset = ct_slice()
        dataset.SOPInstanceUID = f"1.2.840.99.1.{number}"
        dataset.InstanceNumber, dataset.BurnedInAnnotation = number, "NO"
        (source / f"{number:04d}.dcm").write_bytes(to_bytes(dataset))
    dataset = ct_slice()
    dataset.SOPInstanceUID = "1.2.840.99.1.9"
    dataset.BurnedInAnnotation = "YES"
    (source / "0009.dcm").write_bytes(to_bytes(dataset))
    (source / "letter.txt").write_text("Dear colleague,\n")


def stories() -> list[Path]:
    return sorted(HERE.glob("*.txt"))


def commands(story: Path) -> list[str]:
    return [line[2:] for line in story.read_text().splitlines() if line.startswith("$ ")]


def play(story: Path, folder: Path) -> str:
    """The story as it goes today, in `folder`: its comment, and each command with what it prints."""
    told = [line for line in story.read_text().splitlines() if line.startswith("#")]
    for command in commands(story):
        ended = subprocess.run(
            ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, cwd=folder, timeout=120, check=False,
            env={**ENVIRONMENT, "PATH": f"{CLOISTER.parent}:{os.defpath}", "COLUMNS": "100"},
        )  # fmt: skip
        printed = ended.stdout.replace(str(folder), "/home/desk")
        for pattern, words in _CHANGING:
            printed = pattern.sub(words, printed)
        told += ["", f"$ {command}", *printed.rstrip("\n").split("\n")] if printed.strip() else ["", f"$ {command}"]
        if ended.returncode:
            told.append(f"[exit {ended.returncode}]")
    return "\n".join(line.rstrip() for line in told) + "\n"
