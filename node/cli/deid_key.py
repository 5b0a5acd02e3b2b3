"""`cloister deid key`: the 32 bytes every pseudonym is computed with, made and destroyed."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from mediator.deid.traceability import NO_TRACEABILITY, key_id, retirement, signing_key
from mediator.errors import UsageFault
from node.cli.files import read_text, write_new
from node.cli.output import say
from node.keys import new_raw_key, read_raw_key, write_verify_key

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Make and destroy the key pseudonyms are computed with."""


@app.command("new")
def new(file: Annotated[Path, typer.Argument(help="where the key goes: 32 raw bytes, mode 0600")]) -> None:
    """Make a key. Never overwrites. FILE.pub checks the record of its retirement, and tells nothing of it."""
    key = new_raw_key(file)
    write_verify_key(file, signing_key(key).verify_key)
    say(f"wrote {file} and {file}.pub, key id {key_id(key)}")


@app.command("retire")
def retire(
    file: Annotated[Path, typer.Argument(help="the key to destroy")],
    report: Annotated[
        list[Path] | None, typer.Option(help="a DST.summary.json made with this key: it then says no traceability")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Destroy a key for good: later deliveries and opt-outs can no longer be matched to a patient.

    FILE.retired.jsonl gets a line, signed by the key as its last act, before the key is overwritten and removed.
    Copies of the key elsewhere are not reached: destroy them too.
    """
    key = read_raw_key(file)
    summaries = [(path, _summary(path, key_id(key))) for path in report or ()]
    if not yes:
        typer.confirm("Destroy this key? Nobody can undo it", abort=True, err=True)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    _append(file.with_name(f"{file.name}.retired.jsonl"), retirement(key, now))
    _destroy(file)
    for path, summary in summaries:
        write_new(path, json.dumps({**summary, "traceability": NO_TRACEABILITY, "key_retired": now}, indent=2))
    say(f"destroyed key {key_id(key)}: {NO_TRACEABILITY}")


def _summary(path: Path, key: str) -> dict[str, object]:
    try:
        found = json.loads(read_text(path))
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("key") != key:
        raise UsageFault(f"{path} is no summary of a run with this key")
    return found


def _append(path: Path, line: bytes) -> None:
    """On disk before the key goes: a destruction that nobody can prove would be worth nothing."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UsageFault(f"cannot write the record of retirement: {error.strerror}") from error
    with os.fdopen(handle, "wb") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _destroy(path: Path) -> None:
    """Overwritten, then removed, each on disk before the next (a journal or flash may still hold a copy)."""
    handle = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(handle, "wb", buffering=0) as file:
        file.write(bytes(32))
        os.fsync(file.fileno())
    path.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
