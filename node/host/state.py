"""The state folder: made once, with the owners and modes that say who may read what.

Under one user only the modes hold; under separate users the owners keep the link from a dataset, the broker from a
key, and everybody but intake from whatever could name a patient.

1. The state folder itself belongs to whoever starts the node. A process that owned it could put a link in the place of
   any other's folder, and the other would write where the link leads.
2. So does every folder in which entries of several users lie (`run`, where core makes sockets; the sticky bit keeps
   it from the broker's). A folder that another user's process opens belongs to root or to that user; where one writes
   and another reads (`spool`, `handover`), the reader goes by descriptors.
3. Everything here is opened step by step, never through a link, and what root writes into a process's folder it writes
   with the rights of that process.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from durable.below import PASSING, below, whole_path
from mediator.audit import segment_name
from mediator.errors import IntegrityBroken, UsageFault
from node.host.accounts import Account, acting_as
from node.host.config import NodeConfig
from node.host.disk_errors import cannot_pass, cannot_write, is_full
from node.host.keys import new_raw_key, new_signing_key, public_path, read_verify_key, retired_record, write_verify_key
from node.host.migrate_state import cure, move_cores_files
from node.host.processes import PROCESSES, Process, Room

# a folder of one process that another reads
SHARED_MODE = 0o2750


@dataclass(frozen=True)
class Folder:
    """A folder as it must be."""

    path: Path
    uid: int
    gid: int
    mode: int


def folders(
    config: NodeConfig, starter: Account | None = None, processes: Sequence[Process] = PROCESSES
) -> Iterator[Folder]:
    """Every folder of the state folder, parents first. `starter` is who starts the node: this process's user, if not
    given."""
    us = starter or Account(os.geteuid(), os.getegid())
    separate = config.users.separate
    owners = config.users.accounts(processes) if separate else {process.name: us for process in processes}
    paths = config.paths

    def own(path: Path, mode: int = 0o700) -> Folder:
        return Folder(path, us.uid, us.gid, mode)

    yield own(paths.root, 0o711)  # (1)
    writer = next((owners[process.name].gid for process in processes if process.writes_run), us.gid)
    yield Folder(paths.run, us.uid, writer, 0o1771 if separate else 0o711)  # (2)
    for process in processes:
        for room in process.rooms:
            group = owners[room.reader or process.name].gid
            yield Folder(paths.root / room.path, owners[process.name].uid, group, _mode(room, separate=separate))
    yield own(paths.logs)
    yield own(paths.supervisor_pid.parent, 0o755)


def _mode(room: Room, *, separate: bool) -> int:
    """What two processes share is the writer's, readable by the reader's group; the bit 02000 gives that group to
    whatever appears in it. Under one user that group could be everybody's, so the group gets nothing."""
    if room.mode is not None:
        return room.mode
    return SHARED_MODE if room.reader and separate else 0o700


def prepare_state(config: NodeConfig) -> None:
    """Make the state folder, its folders and its keys; what is there already is kept, and put right.

    Raises `UsageFault` when this user may not, or when something that is no folder stands in the way.
    """
    _prepare(config, old=False)


def migrate_state(config: NodeConfig) -> None:
    """The same, of a state folder of an earlier version, on which no node runs."""
    _prepare(config, old=True)


def _prepare(config: NodeConfig, *, old: bool) -> None:
    paths = config.paths
    try:
        if old:
            move_cores_files(config)
        _make_parents(paths.root.parent)
        if misspelt := _misspelt(paths.root):
            raise UsageFault(misspelt)
        with whole_path(paths.root.parent) as parent:
            for folder in folders(config):
                _make(parent, paths.root.parent, folder)
    except OSError as error:
        if is_full(error):
            raise cannot_write(config.state_dir, error) from None
        raise UsageFault(
            f"cannot prepare {error.filename or config.state_dir}: {error.strerror}",
            hint="run as root, or choose a state_dir of your own",
        ) from None
    try:
        _make_keys(config)
    except OSError as error:
        raise cannot_pass(paths.root.parent, error) from None


@dataclass(frozen=True)
class StateSeen:
    """What differs from how the folders must be, one line each, and the folders this user may not even look at."""

    wrong: list[str]
    unseen: list[str]


def check_state(config: NodeConfig, expected: Iterable[Folder] | None = None) -> list[str]:
    """What differs from how the folders must be for a node that this user starts; empty when all is well."""
    seen = _look(folders(config) if expected is None else expected)
    return [*seen.wrong, *(f"{path} cannot be looked at" for path in seen.unseen)]


def changed_since(expected: Iterable[Folder]) -> list[str]:
    """What differs while a node runs, of `folders` as they were when it started. What cannot be looked at just now (too
    many open files, a disk that hangs) has not changed."""
    return _look(expected).wrong


def look_at_state(config: NodeConfig) -> StateSeen:
    """The same for anybody who looks at the node of somebody else: whoever owns the state folder has started it, or
    root, where each process has a user of its own."""
    try:
        owner = config.paths.root.lstat()
    except FileNotFoundError:
        return StateSeen([f"{config.paths.root} is missing: cloister node init"], [])
    except PermissionError:
        return StateSeen([], [str(config.paths.root)])
    starter = Account(0, 0) if config.users.separate else Account(owner.st_uid, owner.st_gid)
    if old := cure(config):
        return StateSeen([old], [])
    return _look(folders(config, starter))


def _look(expected: Iterable[Folder]) -> StateSeen:
    seen = StateSeen([], [])
    root = None
    for folder in expected:
        root = root or folder.path
        try:
            found = _found(root, folder.path)
        except FileNotFoundError:
            seen.wrong.append(f"{folder.path} is missing")
            continue
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):  # a link, or a file, here or on the way
                seen.wrong.append(_misspelt(root) or f"{folder.path} is not a folder")
            else:
                seen.unseen.append(str(folder.path))
            continue
        if (found.st_uid, found.st_gid) != (folder.uid, folder.gid):
            seen.wrong.append(f"{folder.path} belongs to {found.st_uid}:{found.st_gid}, not {folder.uid}:{folder.gid}")
        elif stat.S_IMODE(found.st_mode) != folder.mode:
            seen.wrong.append(f"{folder.path} has mode {stat.S_IMODE(found.st_mode):o}, not {folder.mode:o}")
    return seen


def _found(root: Path, path: Path) -> os.stat_result:
    with whole_path(root, PASSING) as top, below(top, *path.relative_to(root).parts, flags=PASSING) as folder:
        return os.fstat(folder)


def _make_parents(path: Path) -> None:
    """What is missing on the way to the state folder, for every user of the node to pass, whatever the umask."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)


def _misspelt(root: Path) -> str:
    """What is wrong with a state folder that is reached through a link, which may lead elsewhere a moment later."""
    real = os.path.realpath(root)
    return "" if real == str(root) else f"state_dir is {root} and leads through a link; write: state_dir = {real}"


def _make(top: int, top_path: Path, folder: Folder) -> None:
    """`top` is open at `top_path`. Only who owns the folder before may own what lies in it: the parents come first."""
    *way, name = folder.path.relative_to(top_path).parts
    with below(top, *way) as parent:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            pass
        with below(parent, name) as made:
            found = os.fstat(made)
            if (found.st_uid, found.st_gid) != (folder.uid, folder.gid):
                os.fchown(made, folder.uid, folder.gid)
            os.fchmod(made, folder.mode)


def _make_keys(config: NodeConfig) -> None:
    """The node's own keys, each made once.

    A key that went missing is never quietly made anew: another audit key could not vouch for the log so far, and
    another site key would give every patient a second pseudonym.
    """
    paths, owners = config.paths, config.users.accounts()
    with acting_as(owners["core"]):
        for path in (paths.audit_key, paths.release_key, paths.verdict_key):
            if not path.exists():
                _must_be_new(path, public_path(path))
                new_signing_key(path)
        begun = (paths.audit / segment_name(1)).exists()  # written when the node first started
        verdict = read_verify_key(public_path(paths.verdict_key))
    with acting_as(owners["intake"]):
        for path in (paths.site_key, paths.quarantine_key):
            if not path.exists():
                if begun and not retired_record(path).exists():  # a key whose end is on record is followed by another
                    raise _gone(path, segment_name(1))
                new_raw_key(path)
    with acting_as(owners["broker"]):
        if not paths.verdict_public_key.exists():
            write_verify_key(paths.verdict_public_key.with_suffix(""), verdict)


def _must_be_new(key: Path, witness: Path) -> None:
    if witness.exists():
        raise _gone(key, witness.name)


def _gone(key: Path, witness: str) -> IntegrityBroken:
    return IntegrityBroken(f"{key} is gone, but {witness} says it was there", hint="restore it from a backup")
