"""Runs the `cloister` command line as a person would, keeps what it said, and starts and stops what has to last.

Only what this module started is ever stopped, by its process id.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from deploy.demo.failures import DemoFailed
from deploy.demo.workplace import Account

COMMAND_WITHIN_S = 300.0
# a node stops its containers first (5 s by contract), then its processes
STOP_WITHIN_S = 20.0


@dataclass(frozen=True)
class Answer:
    """What a finished command left behind."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Service:
    """A long-lived program that the demo started, in a session of its own."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


@dataclass
class Programs:
    """Everything the demo runs. `cloister` is the command's path, `logs` where its words go."""

    cloister: Path
    logs: Path
    environment: Mapping[str, str]
    services: list[Service] = field(default_factory=list)
    _running: set[subprocess.Popen[str]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # ---- commands that end

    def __call__(self, *words: object, account: Account | None = None, within_s: float = COMMAND_WITHIN_S) -> Answer:
        """Run `cloister WORDS…`; raise `DemoFailed` with its last words unless it exits 0."""
        return self.checked(self.attempt(*words, account=account, within_s=within_s), *words)

    def checked(self, answer: Answer, *words: object) -> Answer:
        """The answer, if it exited 0. `words` name the command in the error."""
        if answer.code:
            said = answer.err.strip().splitlines()[-2:] or ["it said nothing"]
            shown = " ".join(Path(word).name if isinstance(word, Path) else str(word) for word in words[:4])
            raise DemoFailed(f"`{shown} …` exited {answer.code}: {' · '.join(said)}", self.hint, answer.code)
        return answer

    def json(self, *words: object, account: Account | None = None) -> Any:
        return self(*words, "--json", account=account).json()

    def attempt(
        self,
        *words: object,
        account: Account | None = None,
        within_s: float = COMMAND_WITHIN_S,
        on_error_line: Callable[[str], None] | None = None,
    ) -> Answer:
        """Run `cloister WORDS…` to its end, whatever that is; its stderr is handed on line by line as it comes."""
        return self._finish([str(self.cloister), *map(str, words)], account, within_s, on_error_line)

    def run_python(self, program: Path, *words: object, account: Account | None = None) -> Answer:
        """Run a Python program in the product's environment; raise `DemoFailed` unless it exits 0."""
        command = [sys.executable, "-P", str(program), *map(str, words)]
        return self.checked(self._finish(command, account, COMMAND_WITHIN_S, None), program.name, *words)

    def _finish(
        self,
        command: list[str],
        account: Account | None,
        within_s: float,
        on_error_line: Callable[[str], None] | None,
    ) -> Answer:
        began = time.monotonic()
        process = self._popen(command, account)
        talk: list[str] = []
        reader = threading.Thread(target=_collect, args=(process.stderr, talk, on_error_line), daemon=True)
        reader.start()
        timer = threading.Timer(within_s, process.kill)
        timer.start()
        try:
            out = process.stdout.read() if process.stdout else ""
            code = process.wait()
        finally:
            timer.cancel()
            reader.join(timeout=5)
            with self._lock:
                self._running.discard(process)
        self._remember(command, code, time.monotonic() - began, "".join(talk))
        return Answer(code, out, "".join(talk))

    def lines(self, *words: object, account: Account | None = None) -> Iterator[str]:
        """The lines of a command that talks until something ends (`--follow`)."""
        command = [str(self.cloister), *map(str, words)]
        began = time.monotonic()
        process = self._popen(command, account)
        talk: list[str] = []
        reader = threading.Thread(target=_collect, args=(process.stderr, talk, None), daemon=True)
        reader.start()
        try:
            yield from process.stdout or ()
        finally:
            if process.poll() is None:
                process.terminate()
            code = process.wait()
            reader.join(timeout=5)
            with self._lock:
                self._running.discard(process)
            self._remember(command, code, time.monotonic() - began, "".join(talk))

    def _popen(self, command: list[str], account: Account | None) -> subprocess.Popen[str]:
        options: dict[str, Any] = dict(account.subprocess_options) if account else {}
        # a session of its own: Ctrl-C is for us to handle, in order
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=dict(self.environment), cwd="/", start_new_session=True, **options,
        )  # fmt: skip
        with self._lock:
            self._running.add(process)
        return process

    def _remember(self, command: list[str], code: int, seconds: float, talk: str) -> None:
        with self._lock, (self.logs / "commands.log").open("a", encoding="utf-8") as file:
            file.write(f"$ {shlex.join([Path(command[0]).name, *command[1:]])}\n")
            file.write("".join(f"  {line}\n" for line in talk.splitlines()))
            file.write(f"  exit {code} after {seconds:.2f} s\n")

    # ---- programs that last

    def serve(self, name: str, *words: object, account: Account | None = None) -> Service:
        """Start `cloister WORDS…` and leave it running; what it says goes to `logs/NAME.log`."""
        log = self.logs / f"{name}.log"
        options: dict[str, Any] = dict(account.subprocess_options) if account else {}
        with log.open("ab") as file:
            process = subprocess.Popen(
                [str(self.cloister), *(str(word) for word in words)], stdin=subprocess.DEVNULL, stdout=file,
                stderr=subprocess.STDOUT, env=dict(self.environment), cwd="/", start_new_session=True, **options,
            )  # fmt: skip
        service = Service(name, process, log)
        with self._lock:
            self.services.append(service)
        return service

    def wait_until(self, ready: Callable[[], bool], service: Service, *, within_s: float = 60.0) -> None:
        """Wait until `ready()`; fail at once if the program has ended instead."""
        deadline = time.monotonic() + within_s
        while not ready():
            if service.process.poll() is not None:
                said = service.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-2:]
                raise DemoFailed(f"{service.name} ended at once: {' · '.join(said)}", self.hint, 1)
            if time.monotonic() > deadline:
                raise DemoFailed(f"{service.name} is not ready after {within_s:.0f} s", self.hint, 5)
            time.sleep(0.1)

    def stop_all(self) -> None:
        """End every command and every program of ours: nodes first, so that they can say goodbye to the hub."""
        with self._lock:
            running, services = list(self._running), list(reversed(self.services))
            self.services.clear()
        for command in running:
            _signal(command.pid, signal.SIGTERM)
        for service in services:
            if service.name != "hub":
                _signal(service.process.pid, signal.SIGTERM)
        _wait([service.process for service in services if service.name != "hub"])
        for service in services:
            if service.name == "hub":
                _signal(service.process.pid, signal.SIGTERM)
        _wait([service.process for service in services])

    @property
    def hint(self) -> str:
        return f"the logs are in {self.logs}"


def port_answers(host: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _collect(stream: IO[str] | None, into: list[str], on_line: Callable[[str], None] | None) -> None:
    for line in stream or ():
        into.append(line)
        if on_line:
            on_line(line.rstrip())


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _wait(processes: list[subprocess.Popen[bytes]]) -> None:
    """Wait for all; whoever is too slow is killed with its whole session."""
    deadline = time.monotonic() + STOP_WITHIN_S
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # the session's leader names its group
            except ProcessLookupError:
                pass
            process.wait()
