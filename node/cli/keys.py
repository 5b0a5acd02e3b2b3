"""`cloister keys`: Ed25519 key files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from node.cli.output import say
from node.host.keys import new_signing_key

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Make key files."""


@app.command("new")
def new(file: Annotated[Path, typer.Argument(help="where the private key goes; FILE.pub beside it is public")]) -> None:
    """Make a key: FILE (private, mode 0600) and FILE.pub (64 hexadecimal digits, to hand out). Never overwrites."""
    key = new_signing_key(file)
    say(f"wrote {file} and {file}.pub, key id {key.key_id}")
