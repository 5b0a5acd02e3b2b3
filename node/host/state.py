"""The state folder: made once, with the owners and modes that say who may read what.

Under one user only the modes hold; under separate users the owners keep the link from a dataset, the broker from a
key, and everybody but intake from whatever could name a patient.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mediator.audit import segment_name
from mediator.errors import IntegrityBroken, UsageFault
from node.host.accounts import Account
from node.host.config import NodeConfig
from node.host.disk_errors import cannot_write, is_full
from node.host.keys import new_raw_key, new_signing_key, public_path, read_verify_key, retired_record, write_verify_key


@dataclass(frozen=True)
class Folder:
    """A folder as it must be."""

    path: Path
    uid: int
    gid: int
    mode: int


def folders(config: NodeConfig, starter: Account | None = None) -> Iterator[Folder]:
    """Every folder of the state folder, parents first. `starter` is who starts the node: this process's user, if not
    given."""
    us = starter or Account(os.geteuid(), os.getegid())
    separate, roles = config.users.separate, ("core", "intake", "broker", "link")
    paths, owners = config.paths, config.users.accounts() if separate else dict.fromkeys(roles, us)
    core, intake, broker, link = (owners[role] for role in roles)
    # what two processes share is the writer's, readable by the reader's group; the bit 02000 gives that group to
    # whatever appears in it. Under one user that group could be everybody's, so the group gets nothing.
    shared = 0o2750 if separate else 0o700

    def own(path: Path, account: Account, mode: int = 0o700) -> Folder:
        return Folder(path, account.uid, account.gid, mode)

    yield own(paths.root, core, 0o711)
    for path in (paths.keys, paths.audit, paths.witness_file.parent, paths.datasets, paths.releases, paths.jobs):
        yield own(path, core)
    yield own(paths.work, core, 0o711)
    yield Folder(paths.spool, core.uid, link.gid, shared)
    yield own(paths.link, link)
    for path in (paths.intake, paths.quarantine, paths.site_key.parent):
        yield own(path, intake)
    yield Folder(paths.handover, intake.uid, core.gid, shared)
    yield own(paths.broker, broker, 0o711)
    yield own(paths.probe, broker, 0o755)
    yield own(paths.run, core, 0o711)
    yield Folder(paths.broker_socket.parent, broker.uid, core.gid, 0o2711)
    yield own(paths.logs, us)
    yield own(paths.supervisor_pid.parent, us, 0o755)


def prepare_state(config: NodeConfig) -> None:
    """Make the state folder, its folders and its keys; what is there already is kept, and put right.

    Raises `UsageFault` when this user may not, or when something that is no folder stands in the way.
    """
    try:
        config.paths.root.parent.mkdir(parents=True, exist_ok=True)
        for folder in folders(config):
            _make(folder)
    except OSError as error:
        if is_full(error):
            raise cannot_write(config.state_dir, error) from None
        raise UsageFault(
            f"cannot prepare {error.filename or config.state_dir}: {error.strerror}",
            hint="run as root, or choose a state_dir of your own",
        ) from None
    _make_keys(config)


@dataclass(frozen=True)
class StateSeen:
    """What differs from how the folders must be, one line each, and the folders this user may not even look at."""

    wrong: list[str]
    unseen: list[str]


def check_state(config: NodeConfig) -> list[str]:
    """What differs from how the folders must be for a node that this user starts; empty when all is well."""
    seen = _look(folders(config))
    return [*seen.wrong, *(f"{path} cannot be looked at" for path in seen.unseen)]


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
    return _look(folders(config, starter))


def _look(expected: Iterable[Folder]) -> StateSeen:
    seen = StateSeen([], [])
    for folder in expected:
        try:
            found = folder.path.lstat()
        except FileNotFoundError:
            seen.wrong.append(f"{folder.path} is missing")
            continue
        except PermissionError:
            seen.unseen.append(str(folder.path))
            continue
        if not stat.S_ISDIR(found.st_mode):
            seen.wrong.append(f"{folder.path} is not a folder")
        elif (found.st_uid, found.st_gid) != (folder.uid, folder.gid):
            seen.wrong.append(f"{folder.path} belongs to {found.st_uid}:{found.st_gid}, not {folder.uid}:{folder.gid}")
        elif stat.S_IMODE(found.st_mode) != folder.mode:
            seen.wrong.append(f"{folder.path} has mode {stat.S_IMODE(found.st_mode):o}, not {folder.mode:o}")
    return seen


def _make(folder: Folder) -> None:
    try:
        folder.path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    # through a descriptor: a link put in the folder's place would otherwise be followed
    descriptor = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if (found.st_uid, found.st_gid) != (folder.uid, folder.gid):
            os.fchown(descriptor, folder.uid, folder.gid)
        os.fchmod(descriptor, folder.mode)
    finally:
        os.close(descriptor)


def _make_keys(config: NodeConfig) -> None:
    """The node's own keys, each made once.

    A key that went missing is never quietly made anew: another audit key could not vouch for the log so far, and
    another site key would give every patient a second pseudonym.
    """
    paths, owners = config.paths, config.users.accounts()
    for path in (paths.audit_key, paths.release_key, paths.verdict_key):
        if not path.exists():
            _must_be_new(path, public_path(path))
            new_signing_key(path)
            _give(path, owners["core"])
            _give(public_path(path), owners["core"])
    for path in (paths.site_key, paths.quarantine_key):
        if not path.exists():
            if not retired_record(path).exists():  # a key whose end is on record is followed by another
                _must_be_new(path, paths.audit / segment_name(1))  # written when the node first started
            new_raw_key(path)
            _give(path, owners["intake"])
    if not paths.verdict_public_key.exists():
        write_verify_key(paths.verdict_public_key.with_suffix(""), read_verify_key(public_path(paths.verdict_key)))
        _give(paths.verdict_public_key, owners["broker"])


def _must_be_new(key: Path, witness: Path) -> None:
    if witness.exists():
        raise IntegrityBroken(f"{key} is gone, but {witness.name} says it was there", hint="restore it from a backup")


def _give(path: Path, account: Account) -> None:
    if account.uid != os.geteuid():
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
