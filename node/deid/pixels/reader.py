"""The gate's side of the reader process: start it, ask it, end it, start it again."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from node.deid.pixels.values import PixelFinding, PixelState, PixelVerdict, Region

# One thread each: the gate's caller decides how many gates there are. No network, no telemetry, no home.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "PYTHONUTF8": "1"}
# A picture of 2000 x 2000 takes some 5 s on a slow core; a minute of silence means it hangs.
SILENCE_S = 60.0
# An answer holds at most `examiner.MAX_REGIONS` boxes for each of a few thousand files.
_MAX_ANSWER_BYTES = 1 << 26

T = TypeVar("T")


class ReaderDied(Exception):
    """The process ended, hung, or answered something else."""


class ReaderProcess:
    """A reader process, started when first asked and again after it died."""

    def __init__(
        self,
        *,
        silence_s: float = SILENCE_S,
        command: Sequence[str] | None = None,
        on_picture: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_picture` is called whenever the process has read another picture."""
        self._on_picture = on_picture
        self._silence_s = silence_s
        self._command = list(command or (sys.executable, "-P", "-m", "node.deid.pixels.reader_process"))
        self._process: subprocess.Popen[bytes] | None = None
        self._pending = b""

    def ask(self, paths: Sequence[Path], *, every_frame: bool, doubt: bool, quick: bool = False) -> list[PixelVerdict]:
        """Verdicts for files looked at together; `quick`: properly only at what a quick look suspects.

        Raises `ReaderDied`; the next call starts a new process.
        """
        request = {"every_frame": every_frame, "doubt": doubt, "quick": quick}
        return self._answer(paths, request, "verdicts", _verdict)

    def fingerprints(self, paths: Sequence[Path], key: bytes) -> list[bytes | None]:
        """Keyed hashes of decoded pixels; None where nothing decodes. Raises `ReaderDied`."""
        return self._answer(paths, {"key": key.hex()}, "fingerprints", _digest)

    def settle(self, path: Path) -> bool | None:
        """Whether a compressed file held more than its pictures and was written again; None: nothing decodes it."""
        return self._answer([path], {"settle": True}, "settled", _settled)[0]

    def _answer(
        self, paths: Sequence[Path], request: Mapping[str, Any], name: str, shape: Callable[[Any], T]
    ) -> list[T]:
        """What the process says of each path, by `shape`; anything it cannot shape is no answer."""
        request = {"paths": [os.fspath(path.absolute()) for path in paths], **request}
        try:
            process = self._started()
            assert process.stdin is not None
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            while name not in (message := self._hear(process)):
                if name == "verdicts":
                    self._on_picture()
            answer = [shape(plain) for plain in message[name]]
            if len(answer) != len(paths):
                raise ReaderDied
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.close()
            raise ReaderDied from error
        except BaseException:
            self.close()
            raise
        return answer

    @property
    def pid(self) -> int | None:
        """Its process id, while it runs."""
        return self._process.pid if self._process is not None else None

    def close(self) -> None:
        """End the process, whatever it is doing. Safe to repeat."""
        process, self._process, self._pending = self._process, None, b""
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass  # what was still in the buffer has no reader

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**{key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}, **_ENVIRONMENT},
                start_new_session=True,
            )
            if "ready" not in self._hear(self._process):
                raise ReaderDied
        return self._process

    def _hear(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        """The next message, within the time a living process takes."""
        assert process.stdout is not None
        until = time.monotonic() + self._silence_s
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise ReaderDied
                more = os.read(process.stdout.fileno(), 1 << 16)
                if not more or len(self._pending) > _MAX_ANSWER_BYTES:
                    raise ReaderDied
                self._pending += more
        line, _, self._pending = self._pending.partition(b"\n")
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ReaderDied
        return message


def _verdict(plain: Mapping[str, Any]) -> PixelVerdict:
    finding = PixelFinding(plain["finding"]) if plain["finding"] is not None else None
    return PixelVerdict(
        PixelState(plain["state"]), finding, tuple(Region(*map(int, box)) for box in plain["regions"]), plain["read"]
    )


def _digest(plain: str | None) -> bytes | None:
    return bytes.fromhex(plain) if plain is not None else None


def _settled(plain: bool | None) -> bool | None:
    if plain not in (True, False, None):
        raise ValueError
    return plain
