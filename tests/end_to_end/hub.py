"""The house's hub: the driver's, and what a test may do to it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from deploy.driver import hub
from deploy.driver.commands import Commands
from deploy.driver.services import give

ROGUE_HUB = Path(__file__).parents[1] / "federation" / "rogue_hub.py"


class Hub(hub.Hub):
    """The hub's folder and its process."""

    def __init__(self, folder: Path, uid: int | None) -> None:
        super().__init__(Commands(), folder, uid, folder / "hub.log")

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        return None if self.service is None else self.service.process

    def install(self, committee: str) -> None:
        """Make the hub's state. Its operator then lets it trust itself: what that is worth is what the tests ask."""
        self.folder.mkdir(mode=0o700)
        give(self.folder, self.uid)
        self.configure(committee)
        self.init()
        self.configure(committee, self.public_key("instruction"))

    def rogue(self, *words: object) -> dict[str, Any]:
        """Run `tests.federation.rogue_hub` with everything that the hub's account can reach."""
        return self.misbehave(ROGUE_HUB, *words)

    def ended(self, run: str, *, within_s: float = 60.0) -> dict[str, Any]:
        """The run's history once it is over, told by one command that follows it."""
        words = ("hub", "run", "show", run, "--follow", "--json", "--config", self.config)
        done = self.commands.attempt(*words, uid=self.uid, within_s=within_s)
        assert done.code == 0, (done, self.show(run), self.log.read_text()[-2000:])
        history: dict[str, Any] = json.loads(done.out.splitlines()[-1])
        return history
