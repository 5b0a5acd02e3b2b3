"""Whoever sits neither at the node nor at the hub: the committee, the researcher, with keys and papers outside both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.demo import permits
from deploy.driver.commands import Commands
from deploy.driver.signing import Signer

TRAINING = {"learning-rate": 0.01, "batch-size": 8, "seed": 1}


@dataclass
class People:
    """Papers lie in `desk`; what a machine shall read is copied into it by the story."""

    desk: Path
    revocations: int = 0

    def make_keys(self) -> None:
        self.desk.mkdir(parents=True, exist_ok=True)
        for name in ("committee", "researcher", "steward"):
            self._signer(name).make_key()

    def _signer(self, name: str) -> Signer:
        return Signer(Commands(), self.desk, name)

    def key(self, name: str) -> Path:
        return self._signer(name).key

    def public(self, name: str) -> str:
        return self._signer(name).public_key

    def revocation_list(self) -> Path:
        """The next list; nothing is revoked."""
        self.revocations += 1
        return self._signer("committee").sign_revocations(self.revocations)

    def permit(self, name: str, image: str, tensors: list[Mapping[str, Any]], versions: Mapping[str, str]) -> Path:
        committee = self._signer("committee")
        draft = permits.draft(
            name, image=image, versions=versions, tensors=tensors, config=permits.CONFIG, issuer=committee.key_id,
            maximum_rounds=50, researchers=[self.public("researcher")], byte_budget=100_000_000,
        )  # fmt: skip
        return committee.sign_permit(draft | {"minimum_studies": 3, "count_threshold": 2})

    def order(self, run: str, permit: Path, image: str, site: str, rounds: int, epochs: int = 1) -> Path:
        config = json.dumps(TRAINING | {"epochs": epochs})
        return self._signer("researcher").order(run, permit, image, [site], rounds, config)
