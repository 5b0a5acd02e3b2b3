"""The hub's two signing keys: `instruction.key` and `witness.key`, 64 hexadecimal digits each, mode 0600."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from durable.files import replace_file
from federation.files import make_folder
from mediator.errors import Malformed, UsageFault
from mediator.signatures import SigningKey

INSTRUCTION = "instruction.key"
WITNESS = "witness.key"


def create_keys(folder: Path) -> None:
    """Make both keys, with their public halves beside them."""
    make_folder(folder)
    for name in (INSTRUCTION, WITNESS):
        seed = secrets.token_bytes(32)
        replace_file(folder / name, seed.hex().encode("ascii") + b"\n")
        public = SigningKey(seed).verify_key.text.encode("ascii")
        replace_file(folder / f"{name.removesuffix('.key')}.pub", public + b"\n", 0o644)


def load_key(path: Path) -> SigningKey:
    """The key in `path`. Raises `UsageFault` when it is missing, readable by others or somebody else's."""
    try:
        info = path.stat()
        text = path.read_text("ascii").strip()
    except OSError as error:
        raise UsageFault(f"{path.name} cannot be read ({error.strerror})", hint="run `cloister hub init`") from error
    if stat.S_IMODE(info.st_mode) & 0o077 or info.st_uid != os.geteuid():
        raise UsageFault(f"{path.name} is readable by others or belongs to somebody else", hint="mode 0600")
    try:
        return SigningKey(bytes.fromhex(text))
    except ValueError as error:
        raise Malformed(f"{path.name} is not 64 hexadecimal digits") from error
