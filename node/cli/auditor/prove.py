"""`cloister audit prove`, `check-proof`: one record, with what shows that a signed checkpoint covers it.

A proof is a small file: whoever has it and the node's public audit key needs nothing else of the log (RFC 9162).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mediator.audit import (
    AuditRecord,
    Checkpoint,
    WitnessedCheckpoint,
    decode_checkpoint,
    decode_line,
    decode_witness,
    encode_checkpoint,
)
from mediator.errors import CloisterError, IntegrityBroken, Malformed, NotNow, UsageFault
from mediator.tree import Inclusion, includes
from node.cli.auditor.forms import fields, in_words
from node.cli.auditor.log_folder import Log, LogLine, check, checkpoint_at, checkpoint_sizes, read_keys
from node.cli.auditor.query import AuditKeys, Config, Folder, WitnessFile, find_log
from node.cli.files import parse_json, read_text
from node.cli.options import NODE_FILE, Json
from node.cli.output import say

_KIND, _VERSION = "cloister.audit-proof", 1
_MEMBERS = {"kind", "version", "record", "proof", "checkpoint", "witness"}
# 54 hashes, a checkpoint and a witness's line
_MAX_PROOF_BYTES = 32_768


def prove(
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="the number of the record", min=1)],
    folder: Folder = None,
    config: Config = NODE_FILE,
    key: AuditKeys = None,
    witness: WitnessFile = None,
) -> None:
    """Print the proof of one record as JSON: the record, the hashes up to a checkpoint, the signatures.

    A checkpoint that the hub has witnessed is taken where there is one. Hand the file out: `cloister audit check-proof`
    holds it against the node's public keys, and needs no other record.
    """
    log = find_log(folder, config, key, witness, False)
    # by the whole checkpoint: after the log was set back, another one of the same size may be witnessed
    signed: dict[Checkpoint | None, WitnessedCheckpoint] = {
        each.checkpoint: each for each in map(decode_witness, log.witness_lines().splitlines())
    }
    covering = [size for size in checkpoint_sizes(log.folder) if size >= number]
    if not covering:
        raise NotNow(f"no checkpoint covers record {number}", hint="cloister node audit checkpoint signs one")
    size = next((each for each in covering if _held(log, each) in signed), covering[0])
    raw, witnessed = checkpoint_at(log.folder, size), signed.get(_held(log, size))
    growing, found = Inclusion(number - 1, size), _Found()

    def take(line: LogLine) -> None:
        growing.append(line.raw)
        if line.record.sequence == number:
            found.line = line

    report = log.read(take, last=size)
    assert report is not None
    check(report)
    assert found.line is not None
    line = found.line
    told = {
        "kind": _KIND,
        "version": _VERSION,
        "record": line.raw.decode("utf-8"),
        "proof": list(growing.proof),
        "checkpoint": raw.decode("utf-8").strip(),
        "witness": None if witnessed is None else encode_checkpoint(witnessed).decode("utf-8").strip(),
    }
    sys.stdout.write(json.dumps(told, indent=2) + "\n")
    say(in_words(line))


def check_proof(
    file: Annotated[Path, typer.Argument(help="what `cloister audit prove` printed")],
    key: Annotated[Path, typer.Option("--key", help="the node's audit-keys.txt, or its audit key alone")],
    as_json: Json = False,
) -> None:
    """Check a proof of one record, offline, and say the record in words. Exit code 4 where it proves nothing."""
    audit_keys, witness_keys = read_keys(key)
    raw, record, checkpoint, witness, proof = _read(file)
    checkpoint.verify(audit_keys)
    if not includes(record.sequence - 1, raw, checkpoint.size, checkpoint.root, proof):
        raise IntegrityBroken("the proof does not show this record in the checkpoint")
    if witness is not None:
        if not witness_keys:
            raise UsageFault(f"{key} holds no witness key", hint="use the node's audit-keys.txt")
        witness.verify(witness_keys)
        if witness.checkpoint != checkpoint:
            raise IntegrityBroken("the witness has signed another checkpoint")
    line = LogLine(raw, record, checkpoint.size)
    sys.stdout.write((json.dumps(fields(line)) if as_json else in_words(line)) + "\n")
    who = "the node and a witness have signed" if witness is not None else "the node has signed, and no witness,"
    say(f"proven: {who} a checkpoint of {checkpoint.site} over {checkpoint.size} records, and this is one of them")


def _held(log: Log, size: int) -> Checkpoint | None:
    """The log's checkpoint over so many records; none where it is none, which the check finds."""
    try:
        return decode_checkpoint(checkpoint_at(log.folder, size))
    except Malformed:
        return None


class _Found:
    line: LogLine | None = None


def _read(file: Path) -> tuple[bytes, AuditRecord, Checkpoint, WitnessedCheckpoint | None, list[str]]:
    told: Any = parse_json(file, read_text(file, limit=_MAX_PROOF_BYTES))
    if not isinstance(told, dict) or told.get("kind") != _KIND or told.get("version") != _VERSION:
        raise UsageFault(f"{file} is no proof of a record", hint="one is made by cloister audit prove")
    try:
        if set(told) != _MEMBERS or not all(isinstance(told[name], str) for name in ("record", "checkpoint")):
            raise Malformed("its members are not those of a proof")
        raw = told["record"].encode("utf-8")
        witness = None if told["witness"] is None else decode_witness(str(told["witness"]).encode("utf-8"))
        proof = [str(each) for each in told["proof"]] if isinstance(told["proof"], list) else []
        return raw, decode_line(raw), decode_checkpoint(told["checkpoint"].encode("utf-8")), witness, proof
    except CloisterError as error:
        raise IntegrityBroken(f"{file} is a broken proof: {error.message}") from None
    except UnicodeError:
        raise IntegrityBroken(f"{file} is a broken proof: it holds what is no text") from None
