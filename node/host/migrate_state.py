"""What state folders of earlier versions have otherwise, and how they become one of today.

The state folder was core's own once, with core's database in it. Whoever starts the node takes it over:

1. Nobody runs on it: the caller holds the node's pid file.
2. The folder is taken from core first; from then on nothing in it can be put in another's place.
3. Core's own files are moved, by their names in open folders, into a folder of core's own; what core put there instead
   of a file is moved as it is, and core's to trip over.
4. `prepare_state` puts the rest right; whatever stands where a folder must be stops it.
"""

from __future__ import annotations

import logging
import os
import re

from durable.below import below, whole_path
from mediator.errors import UsageFault
from node.host.accounts import Account
from node.host.config import NodeConfig, read_secret
from node.host.paths import StatePaths

log = logging.getLogger(__name__)

_CURE = "stop the node and start it again as root, or: cloister node init"
_DATABASE = re.compile(r"node\.db(-wal|-shm|-journal|\..*\.backup)?")


def is_old(config: NodeConfig) -> bool:
    """Whether a state folder is of an earlier version, as far as this user can see."""
    paths = config.paths
    try:
        root = paths.root.lstat()
    except OSError:
        return False
    cores = config.users.separate and root.st_uid == config.users.accounts()["core"].uid
    return cores or os.path.lexists(paths.root / paths.database.name)


def cure(config: NodeConfig) -> str:
    """What to do about a state folder of an earlier version, or nothing where it is not one."""
    return f"it is as an earlier version left it: {_CURE}" if is_old(config) else ""


def move_cores_files(config: NodeConfig) -> None:
    """Take the state folder from core, and put core's files into their own folder. (1) is the caller's.

    Raises `OSError`, `UsageFault` for a database that a configuration names in the state folder itself.
    """
    paths = config.paths
    _check_database(config)
    core = config.users.accounts()["core"] if config.users.separate else Account(os.geteuid(), os.getegid())
    with whole_path(paths.root) as root:
        os.fchown(root, os.geteuid(), os.getegid())  # (2)
        os.fchmod(root, 0o711)
        try:
            os.mkdir(paths.core.name, 0o700, dir_fd=root)
        except FileExistsError:
            pass
        with below(root, paths.core.name) as home:
            # the database last, after its log of writes ahead: while it stands where it was, this is done again
            moved = sorted((name for name in os.listdir(root) if _is_cores(name, paths)), reverse=True)
            for name in moved:
                if name in os.listdir(home):
                    raise UsageFault(
                        f"{name} is in {paths.root} and in {paths.core}", hint="keep the newer one of the two"
                    )
                os.rename(name, name, src_dir_fd=root, dst_dir_fd=home)  # (3)
            os.fchown(home, core.uid, core.gid)
            os.fchmod(home, 0o700)
            os.fsync(home)
        os.fsync(root)
    log.warning("the state folder was an earlier version's; %d files of core's are in %s now", len(moved), paths.core)


def _is_cores(name: str, paths: StatePaths) -> bool:
    return name == paths.pause_mark.name or _DATABASE.fullmatch(name) is not None


def _check_database(config: NodeConfig) -> None:
    if config.database is None:
        return
    url = read_secret(config.database)
    if url.startswith("sqlite") and url.rpartition("/")[0].endswith(str(config.paths.root)):
        raise UsageFault(
            f"the database that the configuration names lies in {config.paths.root}, where core writes no longer",
            hint=f"stop the node, move it to {config.paths.core}, and change the address in the secret",
        )
