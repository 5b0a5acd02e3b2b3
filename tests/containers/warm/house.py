"""A pool of warm containers over a runner that is none, and what a test asks of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from containers.warm.pool import Sandboxes, SandboxKey, WarmTask
from mediator.errors import Denied
from mediator.signatures import SigningKey
from mediator.types import ContainerSpec, Kind, Resources
from tests.sim.runner import FakeRunner

IMAGE = "sha256:" + "1" * 64
NOW = datetime(2026, 11, 22, tzinfo=UTC)
LIMITS = Resources(1.0, 1 << 28, 64, 60, 1 << 20, 1 << 20, 16, 0)
KEY = SandboxKey("run-1", "permit-1", 1, "sha256:" + "2" * 64, Kind.TRAIN, IMAGE, "f" * 64)


def behave(task: Mapping[str, Any], model: bytes) -> Mapping[str, bytes]:
    if task["config"].get("crash"):
        raise RuntimeError
    if task["config"].get("hang"):
        time.sleep(30)
    return {"echo": model, "round": str(task["round"]).encode()}


class House:
    def __init__(self, root: Path, runner: type[FakeRunner] = FakeRunner) -> None:
        self.key = SigningKey(bytes(32))
        self.runner = runner(self.key.verify_key, {IMAGE: behave})
        self.destroyed: list[str] = []
        self.trust_error: Denied | None = None
        root.mkdir()
        self.root = root
        self.boxes = Sandboxes(
            self.runner, root, self.key.sign, self._trust, lambda *_: None, lambda box: self.destroyed.append(box.name)
        )

    def _trust(self, *_: object) -> None:
        if self.trust_error:
            raise self.trust_error

    def serve(self, key: SandboxKey = KEY, round_: int = 1, limit_s: float = 10, **config: Any) -> dict[str, bytes]:
        task = WarmTask(Kind.TRAIN, round_, config, b"model")
        files = self.boxes.serve(key, task, self._view, self._spec, limit_s, lambda _: None)
        return {file.name: file.content for file in files}

    def _view(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)

    def _spec(self, name: str, data: Path, inbox: Path) -> ContainerSpec:
        return ContainerSpec(name, "job", IMAGE, str(data), str(inbox), LIMITS, NOW, NOW + timedelta(hours=1))
