"""The `cloister` command line as a person runs it: a process of its own, with an exit code and words on stderr."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from deploy.driver.failures import DriverFailed

CLOISTER = Path(sys.executable).with_name("cloister")
# nothing of whoever drives is handed on
ENVIRONMENT: Mapping[str, str] = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
COMMAND_WITHIN_S = 300.0


@dataclass(frozen=True)
class Done:
    """A command that ended. One that took too long was killed, and its code is negative."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


def as_user(uid: int | None) -> dict[str, Any]:
    """What `subprocess` needs to start a program as this user, without any of root's groups."""
    return {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}


@dataclass
class Commands:
    """Runs `cloister WORDS…`. `log` is told every command with what it said; `hint` is a failure's."""

    cloister: Path = CLOISTER
    environment: Mapping[str, str] = field(default_factory=lambda: ENVIRONMENT)
    log: Path | None = None
    hint: str = ""
    _running: set[subprocess.Popen[str]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, *words: object, uid: int | None = None, within_s: float = COMMAND_WITHIN_S) -> Done:
        """Run `cloister WORDS…`; raise `DriverFailed` with its last words unless it exits 0."""
        return self.checked(self.attempt(*words, uid=uid, within_s=within_s))

    def json(self, *words: object, uid: int | None = None) -> Any:
        return self(*words, "--json", uid=uid).json()

    def attempt(
        self,
        *words: object,
        uid: int | None = None,
        within_s: float = COMMAND_WITHIN_S,
        on_error_line: Callable[[str], None] | None = None,
    ) -> Done:
        """Run `cloister WORDS…` to its end, whatever that is; its stderr is handed on line by line as it comes."""
        return self._finish([str(self.cloister)], words, uid, within_s, on_error_line)

    def python(self, program: Path, *words: object, uid: int | None = None) -> Done:
        """Run a Python program in the product's environment; raise `DriverFailed` unless it exits 0."""
        command = [sys.executable, "-P", str(program)]
        return self.checked(self._finish(command, words, uid, COMMAND_WITHIN_S, None))

    def checked(self, done: Done) -> Done:
        """The same, if it exited 0."""
        if done.code:
            said = done.err.strip().splitlines()[-2:] or ["it said nothing"]
            shown = " ".join(word.rpartition("/")[2] or word for word in done.words[:4])
            raise DriverFailed(f"`{shown} …` exited {done.code}: {' · '.join(said)}", self.hint, done.code)
        return done

    def lines(self, *words: object, uid: int | None = None) -> Iterator[str]:
        """The lines of a command that talks until something ends (`--follow`)."""
        with _Running(self, [str(self.cloister)], words, uid, None) as running:
            yield from running.process.stdout or ()

    def end_all(self) -> None:
        """Ask every command that still runs to end."""
        with self._lock:
            running = list(self._running)
        for process in running:
            process.terminate()

    def _finish(
        self,
        program: list[str],
        words: tuple[object, ...],
        uid: int | None,
        within_s: float,
        on_error_line: Callable[[str], None] | None,
    ) -> Done:
        with _Running(self, program, words, uid, on_error_line) as running:
            timer = threading.Timer(within_s, running.process.kill)
            timer.start()
            try:
                out = running.process.stdout.read() if running.process.stdout else ""
                running.process.wait()
            finally:
                timer.cancel()
        return Done(tuple(map(str, words)), running.process.returncode, out, "".join(running.talk))


class _Running:
    """A command from its start to its end; on the way out it is ended, and written down."""

    def __init__(
        self,
        commands: Commands,
        program: list[str],
        words: tuple[object, ...],
        uid: int | None,
        on_error_line: Callable[[str], None] | None,
    ) -> None:
        self._commands = commands
        self._command = [*program, *map(str, words)]
        self._began = time.monotonic()
        self.talk: list[str] = []
        # a session of its own: Ctrl-C is for whoever drives to handle, in order
        self.process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=dict(commands.environment), cwd="/", start_new_session=True, **as_user(uid),
        )  # fmt: skip
        with commands._lock:
            commands._running.add(self.process)
        arguments = (self.process.stderr, self.talk, on_error_line)
        self._reader = threading.Thread(target=_collect, args=arguments, daemon=True)
        self._reader.start()

    def __enter__(self) -> _Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()
        self._reader.join(timeout=5)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None and not self._reader.is_alive():
                stream.close()
        self._remember()

    def _remember(self) -> None:
        commands, seconds = self._commands, time.monotonic() - self._began
        with commands._lock:
            commands._running.discard(self.process)
            if commands.log is None:
                return
            with commands.log.open("a", encoding="utf-8") as file:
                file.write(f"$ {shlex.join([Path(self._command[0]).name, *self._command[1:]])}\n")
                file.write("".join(f"  {line}\n" for line in "".join(self.talk).splitlines()))
                file.write(f"  exit {self.process.returncode} after {seconds:.2f} s\n")


def _collect(stream: IO[str] | None, into: list[str], on_line: Callable[[str], None] | None) -> None:
    for line in stream or ():
        into.append(line)
        if on_line:
            on_line(line.rstrip())
