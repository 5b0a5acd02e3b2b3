"""The real SuperLink, as a child that dies with the hub, on a socket that is the hub's user's alone.

Its Control and Runtime APIs answer anybody who reaches them: list runs, stop them. So it listens on no port, loopback's
neither, but on a Unix socket of mode 0600 in a folder of mode 0700, which the hub makes and hands to it; the ingress
lets nothing but Fleet requests through. Taking a ServerApp task needs a secret besides. Telemetry and update checks, on
by default, are off.

It keeps its state in memory, on purpose. After any fall a new Flower run is opened under the same Cloister run and the
old one is never looked at again, so a database of it would only be a second, unaudited copy of every update (and two
and a half times slower: 124 against 54 ms a poll on two busy cores).
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path

from durable.files import replace_file
from durable.logs import keep_small
from federation.files import make_folder
from federation.hub.flower.superlink import SuperLink
from federation.pki import Authority
from mediator.errors import NotNow, UsageFault

log = logging.getLogger("cloister.hub")

_READY_S = 60.0
# uvicorn waits for open connections first, and ours to it are kept alive
_TERM_S = 1.5
_LOG_BYTES = 16 << 20
_BACKLOG = 2048
SOCKET = "superlink.sock"


class SuperLinkProcess:
    """One SuperLink over the life of the hub; `start` may be called again after it ended."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self._folder = make_folder(folder)
        self._authority = authority
        self._log = folder / "superlink.log"
        self._secret_file = folder / "executor.secret"
        self._process: subprocess.Popen[bytes] | None = None
        if not self._secret_file.exists():
            replace_file(self._secret_file, secrets.token_bytes(32))
        self.socket = folder / SOCKET

    @property
    def api(self) -> SuperLink:
        return SuperLink(self.socket, self._secret_file.read_bytes())

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def tidy(self) -> None:
        """Keep the SuperLink's log small, while it runs too: strangers make it talk."""
        keep_small(self._log, _LOG_BYTES)

    async def start(self) -> None:
        """Start it and wait until it answers. Raises `NotNow`, `UsageFault`."""
        record = self._log
        # Flower's own words, about what strangers sent it too: beside the hub's log, and for its operator alone
        record.touch(mode=0o600)
        record.chmod(0o600)
        with record.open("ab") as output, self._listen() as listener:
            program = [sys.executable, "-m", "federation.hub.flower.superlink_program", str(listener.fileno())]
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "federation.hub.die_with_parent",
                    str(os.getpid()),
                    *program,
                    *self._arguments(),
                ],
                env=self._environment(),
                cwd=Path(__file__).parents[2],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=[listener.fileno()],
            )
        api = self.api
        for _ in range(int(_READY_S / 0.1)):
            if not self.running:
                break
            if await asyncio.to_thread(api.healthy):
                return
            await asyncio.sleep(0.1)
        self.stop()
        raise NotNow("the SuperLink does not start", hint=f"see {record}")

    def stop(self) -> None:
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_TERM_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._process = None

    def _listen(self) -> socket.socket:
        """A new socket, closed to others before anybody can connect: uvicorn would make one for everybody."""
        self.socket.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(self.socket))
            self.socket.chmod(0o600)
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            hint = "is the path of the state folder longer than 80 characters?"
            raise UsageFault(f"the SuperLink's socket cannot be made ({error.strerror or error})", hint=hint) from error
        return listener

    def _arguments(self) -> list[str]:
        authority = self._authority
        return [
            "--isolation", "process",
            "--disable-runtime-dependency-installation",
            "--enable-supernode-auth",
            # never used: Flower asks for them with node authentication, and a Unix socket needs no TLS
            "--ssl-ca-certfile", str(authority.ca),
            "--ssl-certfile", str(authority.server_certificate),
            "--ssl-keyfile", str(authority.server_key),
            "--superexec-auth-secret-file", str(self._secret_file),
        ]  # fmt: skip

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
        home = make_folder(self._folder / "home")
        return kept | {
            "HOME": str(home),
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            # every poll would be a line of the access log
            "FLWR_LOG_LEVEL": "WARNING",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
