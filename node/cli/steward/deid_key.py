"""`cloister deid key`: the 32 bytes every pseudonym is computed with, made and destroyed."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from durable.files import flush_folder
from mediator.errors import UsageFault
from mediator.traceability import NO_TRACEABILITY, key_id, retirement, signing_key
from node.cli.files import read_text, replace_file
from node.cli.output import say
from node.host.keys import new_raw_key, read_raw_key, retired_record, write_verify_key

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
    file: Annotated[Path | None, typer.Argument(help="the key to destroy")] = None,
    config: Annotated[
        Path | None, typer.Option(help="a node's TOML file: its site key is destroyed, and its audit log says so")
    ] = None,
    report: Annotated[
        list[Path] | None, typer.Option(help="a DST.summary.json made with this key: it then says no traceability")
    ] = None,
    sign_with: Annotated[
        Path | None, typer.Option(help="your private key file: the node's audit log names you (with --config)")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Destroy a key for good: later deliveries and opt-outs can no longer be matched to a patient.

    FILE.retired.jsonl gets a line, signed by the key as its last act, before the key is overwritten and removed. With
    --config, for the site key of a node that is running, the node's audit log has it before and after; a node makes
    itself another key at its next start. Copies of the key elsewhere are not reached: destroy them too.
    """
    if (file is None) == (config is None):
        raise UsageFault("either FILE or --config", hint="--config destroys the site key of a node")
    node = _Node(config, sign_with) if config is not None else None
    path = node.key if node is not None else Path(file or "")
    key = read_raw_key(path, owner=node.owner if node is not None else None)
    summaries = [(path, _summary(path, key_id(key))) for path in report or ()]
    if not yes:
        typer.confirm("Destroy this key? Nobody can undo it", abort=True, err=True)
    if node is not None:
        node.record(key_id(key), destroyed=False)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    _append(retired_record(path), retirement(key, now))
    _destroy(path)
    if node is not None:
        node.record(key_id(key), destroyed=True)
    for summary, told in summaries:
        content = json.dumps({**told, "traceability": NO_TRACEABILITY, "key_retired": now}, indent=2)
        replace_file(summary, content, mode=summary.stat().st_mode & 0o777)
    say(f"destroyed key {key_id(key)}: {NO_TRACEABILITY}")


class _Node:
    """A node's site key, and its audit log, which its core alone writes."""

    def __init__(self, config: Path, sign_with: Path | None) -> None:
        # here, not above: `cloister deid` comes with the plain install, where no node is
        from node.cli.admin import load

        self._config = load(config)
        self._sign_with = sign_with
        self.key = self._config.paths.site_key
        self.owner = self._config.users.accounts()["intake"].uid

    def record(self, key: str, *, destroyed: bool) -> None:
        """Raises `NotNow` while core is away: then nothing is destroyed."""
        from node.cli.admin import client_for
        from node.ipc.deid_keys import DEID_KEY_RETIRE, KeyRetirement

        with client_for(self._config, DEID_KEY_RETIRE, key=self._sign_with) as core:
            core.call(DEID_KEY_RETIRE, KeyRetirement(key=key, destroyed=destroyed))


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
    flush_folder(path.parent)
