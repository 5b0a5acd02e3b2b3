"""Starts a node's processes, each as its own user, and starts again whichever dies.

One thread and no gRPC in here: children are made with fork and exec. A child dies with its supervisor (PDEATHSIG),
so that a supervisor killed outright leaves nothing behind that nobody watches.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from durable.below import open_file, whole_path
from durable.logs import keep_small
from mediator.errors import CloisterError, IntegrityBroken, NotNow, UsageFault
from node.host.accounts import Account
from node.host.config import NodeConfig
from node.host.migrate_state import is_old
from node.host.processes import PROCESSES, STATE_CHANGED, Process, named, sockets
from node.host.state import Folder, changed_since, check_state, folders, migrate_state

log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
# a child that lived this long was well: its next start is not delayed by its earlier ones
_WELL_S = 60.0
_MAX_LOG_BYTES = 16 << 20
# how often the state folder is looked at while the node runs: some twenty folders, a millisecond
STATE_CHECK_S = 5.0
# core writes down why the node stops, before it is told to
LAST_RECORD_S = 1.0
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38  # linux/prctl.h

_libc = ctypes.CDLL(None, use_errno=True)

Command = Callable[[str], Sequence[str]]


@dataclass
class Child:
    """One process: running, or waiting for its next start."""

    row: Process
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    pause_s: float = _FIRST_PAUSE_S
    next_start_s: float = 0.0

    @property
    def role(self) -> str:
        return self.row.name


class Supervisor:
    """Runs the processes of one node until it is told to stop.

    `command` gives a role's command line; by default `cloister node process ROLE`. `processes` is the table of them.
    """

    def __init__(
        self,
        config: NodeConfig,
        config_file: Path,
        *,
        command: Command | None = None,
        processes: Sequence[Process] = PROCESSES,
    ) -> None:
        self._config = config
        self._config_file = config_file.resolve()
        self._command = command or self._default_command
        self._processes = processes
        self._children = [Child(process) for process in processes]
        self._folders: tuple[Folder, ...] = ()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; every child has ended when this returns.

        Raises `UsageFault` when the state folder is not prepared or this user may not change users, `NotNow` when
        the node is running already, `IntegrityBroken` when the state folder changed while it ran.
        """
        if self._config.users.separate and os.geteuid() != 0:
            raise UsageFault("only root can give each process its own user", hint="run as root, or leave [users] out")
        with only_one(self._config), wakeups() as (stopping, wait):
            self._folders = sound_folders(self._config, self._processes)
            try:
                self._watch(stopping, wait)
            finally:
                self._end_all()

    def _watch(self, stopping: Callable[[], bool], wait: Callable[[float], None]) -> None:
        ready, looked_s = False, time.monotonic()
        while not stopping():
            for child in self._children:
                if not stopping():
                    self._look_after(child)
            if not ready and is_ready(self._config, self._processes):
                ready = True
                log.info("the node is ready")
            if time.monotonic() - looked_s >= STATE_CHECK_S:
                looked_s = time.monotonic()
                self._check_again()
            wait(self._pause_s() if ready else 0.1)

    def _pause_s(self) -> float:
        """Until something is due; a child that ends, and a signal, end the pause."""
        due = [child.next_start_s for child in self._children if child.process is None]
        return min([STATE_CHECK_S, *(max(0.1, next_s - time.monotonic()) for next_s in due)])

    def _check_again(self) -> None:
        """The folders keep the processes apart: where one is another than it was, nobody goes on working.

        Core is told first, and writes it down. Raises `IntegrityBroken`, which ends the node; it does not start again
        before a person has looked.
        """
        wrong = changed_since(self._folders)
        if not wrong:
            return
        log.critical("the state folder has changed under the running node, which stops: %s", "; ".join(wrong))
        for child in self._children:
            if child.row.records_changes and child.process is not None:
                child.process.send_signal(STATE_CHANGED)
                try:
                    child.process.wait(LAST_RECORD_S)
                except subprocess.TimeoutExpired:
                    pass
        raise IntegrityBroken(
            f"the state folder is not as it must be: {wrong[0]}",
            hint="see who changed it, then: cloister node init",
        )

    def _look_after(self, child: Child) -> None:
        now = time.monotonic()
        if child.process is not None:
            status = child.process.poll()
            if status is None:
                keep_small(self._config.paths.logs / f"{child.role}.log", _MAX_LOG_BYTES)
                return
            _kill_group(child.process)
            child.process = None
            if now - child.started_s > _WELL_S:
                child.pause_s = _FIRST_PAUSE_S
            child.next_start_s = now + child.pause_s
            log.warning("%s ended with status %d; it starts again in %.1f s", child.role, status, child.pause_s)
            child.pause_s = min(2 * child.pause_s, _LONGEST_PAUSE_S)
        if now >= child.next_start_s:
            try:
                child.process = self._start(child.row)
            except (OSError, CloisterError) as error:
                self._put_off(child, error, now)
                return
            child.started_s = now
            log.info("%s started, process %d", child.role, child.process.pid)

    def _put_off(self, child: Child, error: OSError | CloisterError, now: float) -> None:
        """A start that failed: the first one ends the node, since nothing will get better; later ones are retried."""
        why = error.message if isinstance(error, CloisterError) else error.strerror
        if child.started_s == 0.0:
            if isinstance(error, CloisterError):
                raise error
            raise UsageFault(
                f"cannot start {child.role}: {why}",
                hint="the installation must be readable for the node's users",
            ) from None
        log.error("%s could not be started: %s", child.role, why)
        child.next_start_s = now + _LONGEST_PAUSE_S

    def _start(self, row: Process) -> subprocess.Popen[bytes]:
        role = row.name
        account = self._config.users.accounts(self._processes)[role]
        change = self._config.users.separate
        parent = os.getpid()
        with _log_file(self._config.paths.logs, f"{role}.log") as out:
            return subprocess.Popen(
                self._command(role),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd="/",
                env=environment(self._config, row),
                start_new_session=True,
                umask=0o077,
                user=account.uid if change else None,
                group=account.gid if change else None,
                extra_groups=groups_of(self._config, role, self._processes) if change else None,
                # this process has one thread, so nothing is locked at the fork
                preexec_fn=lambda: _tie_to(parent),
            )

    def _default_command(self, role: str) -> Sequence[str]:
        # -P: the folder we happen to stand in is no place to import from
        return [sys.executable, "-P", "-m", "node.cli", "node", "process", role, "--config", str(self._config_file)]

    def _end_all(self) -> None:
        """SIGTERM, those that the others need last, then SIGKILL for whoever is left."""
        for last in (False, True):
            stage = [child for child in self._children if child.row.outlives is last and child.process is not None]
            grace_s = max((child.row.stop_s for child in stage), default=0.0)
            _terminate([child.process for child in stage if child.process is not None], grace_s)
        for child in self._children:
            if child.process is not None:
                _kill_group(child.process)
                child.process.wait()


def sound_folders(config: NodeConfig, processes: Sequence[Process] = PROCESSES) -> tuple[Folder, ...]:
    """The state folder as it must be for these processes to start: one of an earlier version is brought up to date.

    Once, since who has which number is asked of a directory that may be away for a moment. The caller holds the pid
    file (`only_one`). Raises `UsageFault`.
    """
    if is_old(config):
        migrate_state(config)
    expected = tuple(folders(config, processes=processes))
    if wrong := check_state(config, expected):
        raise UsageFault(f"the state folder is not as it must be: {wrong[0]}", hint="run: cloister node init")
    return expected


def environment(config: NodeConfig, process: Process) -> dict[str, str]:
    """What a process is given; nothing of ours is inherited, proxies and credentials least of all."""
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "HOME": str(config.paths.root / process.home),
        # Flower asks home for updates and sends statistics unless told not to
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }


def is_ready(config: NodeConfig, processes: Sequence[Process] = PROCESSES) -> bool:
    """Whether every socket of the node is served."""
    return all(_answers(path) for path in sockets(config.paths.root, processes))


def groups_of(config: NodeConfig, role: str, processes: Sequence[Process] = PROCESSES) -> list[int]:
    """The groups a process has besides its own, by number.

    Core is in those whose sockets and folders it serves, and in the one that jobs read by; the broker in the one that
    may use the engine's socket. A user of the system's keeps the groups the hospital gave it (a source folder may be
    readable by one).
    """
    row = named(role, processes)
    accounts: dict[str, Account] = dict(config.users.accounts(processes))
    groups = set(accounts[role].groups) | {accounts[other].gid for other in row.groups_of}
    if row.serves_staff:
        groups |= {group for group in config.staff.groups().values() if group is not None}
    if row.gives_jobs and config.job_group is not None:
        groups.add(config.job_group)
    if row.reach == "engine" and (socket_path := config.engine.path) is not None:
        try:
            groups.add(os.stat(socket_path).st_gid)
        except OSError:
            log.warning("the engine's socket is not there yet")
    return sorted(groups - {accounts[role].gid})


def _tie_to(parent: int) -> None:
    """In the child, before exec: die with the parent, gain no privileges from anything executed."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:  # it died before we were tied to it
        os._exit(1)


def _terminate(processes: Sequence[subprocess.Popen[bytes]], grace_s: float) -> None:
    deadline = time.monotonic() + grace_s
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("process %d does not end by itself", process.pid)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL a child and whatever it started; each child leads a session of its own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


@contextmanager
def _log_file(folder: Path, name: str) -> Iterator[int]:
    """A child's log, appended to: `keep_small` empties it while it is open."""
    try:
        with whole_path(folder) as logs:
            descriptor = _our_own(logs, name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600, renew=True)
    except OSError as error:
        raise NotNow(f"cannot write the log {folder / name}: {error.strerror}") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def only_one(config: NodeConfig, by: str = "") -> Iterator[None]:
    """Hold the pid file; the kernel lets go of it when this process dies, however it dies. `by`: what runs the node.

    Raises `UsageFault` where the state folder is not there, `NotNow` where the node runs.
    """
    path = config.paths.supervisor_pid
    try:
        with whole_path(path.parent) as folder:
            descriptor = _our_own(folder, path.name, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        wrong = (*check_state(config), f"{path}: {error.strerror}")
        hint = f"if no node runs: rm {path}" if error.errno == errno.EPERM else "run: cloister node init"
        raise UsageFault(f"the state folder is not as it must be: {wrong[0]}", hint=hint) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _running(os.pread(descriptor, 64, 0)) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()} {by}".rstrip().encode("ascii") + b"\n")
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _running(mark: bytes) -> NotNow:
    """What to say to somebody who starts a node that runs: `mark` is what its holder wrote into the pid file."""
    if mark.split()[1:] == [b"units"]:
        return NotNow(
            "the node is running already, by the system's service manager",
            hint="stop it first: systemctl stop cloister-node.target",
        )
    return NotNow("the node is running already", hint="stop it first, or give this one its own state_dir")


def _our_own(folder: int, name: str, flags: int, mode: int, *, renew: bool = False) -> int:
    """A file that this process writes, and nobody else: what another user made, or has by a second name, is not it.

    With `renew` such a name is taken away, the folder being ours, and a new file made; what the name led to (a backup's
    copy by hard links) stays as it is. Never with a file that is locked: a second holder would lock another.
    """
    descriptor = open_file(folder, name, flags, mode)
    if _is_ours(descriptor):
        return descriptor
    os.close(descriptor)
    if renew:
        os.unlink(name, dir_fd=folder)
        return open_file(folder, name, flags | os.O_EXCL, mode)
    raise OSError(errno.EPERM, "it is another user's, or has a second name", name)


def _is_ours(descriptor: int) -> bool:
    found = os.fstat(descriptor)
    return found.st_uid == os.geteuid() and found.st_nlink == 1


@contextmanager
def wakeups() -> Iterator[tuple[Callable[[], bool], Callable[[float], None]]]:
    """Whether SIGTERM or SIGINT has come, and how to wait for at most so many seconds: any signal ends the waiting."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    ended: list[int] = []

    def wait(seconds: float) -> None:
        select.select([reading], [], [], seconds)
        _drain(reading)

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, _: ended.append(number)),
        signal.SIGINT: signal.signal(signal.SIGINT, lambda number, _: ended.append(number)),
        signal.SIGCHLD: signal.signal(signal.SIGCHLD, lambda *_: None),
    }
    previous = signal.set_wakeup_fd(writing)
    try:
        yield lambda: bool(ended), wait
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 4096):
            pass
    except BlockingIOError:
        pass
