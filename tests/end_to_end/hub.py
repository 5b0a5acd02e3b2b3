"""The hub: its folder, its process, and the commands its coordinator gives."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.end_to_end.commands import ENVIRONMENT, Done, as_user, cloister, start
from tests.end_to_end.machine import HOST, eventually, free_port, give, kill_whole, stop

HUB_CONFIG = """\
version = 1
name = "hub"
state_dir = "state"
[ingress]
listen = "{host}"
port = {port}
hosts = ["{host}"]
[trust]
committee_keys = [{keys}]
"""


@dataclass
class Hub:
    """The hub's folder and its process."""

    folder: Path
    uid: int | None
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        return self.folder / "hub.toml"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def log(self) -> Path:
        return self.folder / "hub.log"

    def public_key(self, purpose: str) -> str:
        return (self.state / "keys" / f"{purpose}.pub").read_text().strip()

    def run(self, *words: object) -> Done:
        return cloister("hub", *words, "--config", self.config, uid=self.uid)

    def install(self, committee: str) -> None:
        """Make the hub's state. Its operator then lets it trust itself: what that is worth is what the tests ask."""
        self.folder.mkdir(mode=0o700)
        give(self.folder, self.uid)
        self._configure(committee)
        self.run("init")
        self._configure(committee, self.public_key("instruction"))

    def _configure(self, *keys: str) -> None:
        listed = ", ".join(f'"{key}"' for key in keys)
        self.config.write_text(HUB_CONFIG.format(host=HOST, port=self.port, keys=listed))

    def serve(self) -> None:
        said = self.log.stat().st_size if self.log.exists() else 0
        process = self.process = start(self.log, "hub", "serve", "--config", self.config, uid=self.uid)

        def ready() -> bool:
            assert process.poll() is None, self.log.read_text()[-2000:]
            return b"ready at" in self.log.read_bytes()[said:]

        eventually(ready, within_s=60, what="the hub's start")

    def kill(self) -> None:
        """SIGKILL to the hub and every process it started, all at once."""
        assert self.process is not None
        kill_whole(self.process)

    def stop(self) -> None:
        stop(self.process)

    def misbehave(self, *words: object) -> dict[str, Any]:
        """Run `tests.federation.rogue_hub` with everything that the hub's account can reach."""
        program = self.folder / "rogue_hub.py"
        shutil.copyfile(Path(__file__).parents[1] / "federation" / "rogue_hub.py", program)
        give(program, self.uid)
        ended = subprocess.run(
            [sys.executable, "-P", str(program), str(self.config), *map(str, words)],
            capture_output=True, text=True, cwd="/", env=dict(ENVIRONMENT), timeout=90, check=True, **as_user(self.uid),
        )  # fmt: skip
        found: dict[str, Any] = json.loads(ended.stdout or "{}")
        return found

    def show(self, run: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.run("run", "show", run, "--json").json()
        return answer

    def ended(self, run: str, *, within_s: float = 60.0) -> dict[str, Any]:
        """The run's history once it is over, told by one command that follows it."""
        words = ("hub", "run", "show", run, "--follow", "--json", "--config", self.config)
        try:
            done = cloister(*words, uid=self.uid, within_s=within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError((self.show(run), self.log.read_text()[-2000:])) from None
        history: dict[str, Any] = json.loads(done.out.splitlines()[-1])
        return history
