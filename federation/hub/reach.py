"""Where a hub's state lies, and whether it is this user's: all that a question to it needs of the configuration.

The hub checked the whole file when it was made and when it started; whatever is odd about it is for `load_config` to
say.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from mediator.errors import UsageFault


def state_folder(config: Path) -> Path | None:
    """The state folder that `config` names, relative to the file; None where it is not plainly a hub's."""
    try:
        plain = tomllib.loads(config.read_text("utf-8"))
        folder, _ = plain["state_dir"], plain["ingress"]["port"]
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return None
    return (config.parent / folder).absolute() if isinstance(folder, str) else None


def own(path: Path) -> bool:
    """Whether something is there, which this process may read and write. Raises `UsageFault` for what it may not."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _anothers() from error
    if not os.access(path, os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0), effective_ids=True):
        raise _anothers()
    return True


def _anothers() -> UsageFault:
    return UsageFault("the hub's state is not open to this user", hint="run the command as the hub's own user")
