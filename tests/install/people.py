"""Whoever sits neither at the node nor at the hub: the committee, the researcher, with keys and papers outside both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.demo import permits
from tests.end_to_end.commands import cloister
from tests.end_to_end.machine import key_id, public

TRAINING = {"learning-rate": 0.01, "batch-size": 8, "seed": 1}


@dataclass
class People:
    """Papers lie in `desk`; what a machine shall read is copied into it by the story."""

    desk: Path
    revocations: int = 0

    def make_keys(self) -> None:
        self.desk.mkdir(parents=True, exist_ok=True)
        for name in ("committee", "researcher", "steward"):
            cloister("keys", "new", self.key(name))

    def key(self, name: str) -> Path:
        return self.desk / f"{name}.key"

    def public(self, name: str) -> str:
        return public(self.key(name))

    def revocation_list(self) -> Path:
        """The next list; nothing is revoked."""
        self.revocations += 1
        made = self.desk / f"revocations-{self.revocations}.jws"
        before = self.desk / f"revocations-{self.revocations - 1}.jws"
        words = ("--previous", before) if before.exists() else ()
        cloister("permit", "revocations", *words, "--key", self.key("committee"), "--out", made)
        return made

    def permit(self, name: str, image: str, tensors: list[Mapping[str, Any]], versions: Mapping[str, str]) -> Path:
        draft = permits.draft(
            name, image=image, versions=versions, tensors=tensors, config=permits.CONFIG,
            issuer=key_id(self.key("committee")), maximum_rounds=50, researchers=[self.public("researcher")],
            byte_budget=100_000_000,
        )  # fmt: skip
        asked, signed = self.desk / f"{name}.json", self.desk / f"{name}.jws"
        asked.write_text(json.dumps(draft | {"minimum_studies": 3, "count_threshold": 2}))
        cloister("permit", "sign", asked, "--key", self.key("committee"), "--out", signed)
        return signed

    def order(self, run: str, permit: Path, image: str, site: str, rounds: int, epochs: int = 1) -> Path:
        signed = self.desk / f"order-{run}.jws"
        cloister(
            "job", "order", "--permit", permit, "--run", run, "--image", image, "--site", site, "--rounds", rounds,
            "--config", json.dumps(TRAINING | {"epochs": epochs}), "--key", self.key("researcher"), "--out", signed,
        )  # fmt: skip
        return signed
