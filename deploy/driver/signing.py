"""Whoever signs: the Access Committee, the researcher, a steward. Each has a key file and signs with `cloister`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.driver.commands import Commands
from deploy.driver.services import give
from mediator.signatures import VerifyKey


@dataclass
class Signer:
    """Somebody with a key, and the user (None: ours) and folder in which they work."""

    commands: Commands
    folder: Path
    name: str
    uid: int | None = None

    @property
    def key(self) -> Path:
        return self.folder / f"{self.name}.key"

    @property
    def public_key(self) -> str:
        """64 hexadecimal digits, to hand out."""
        return public(self.key)

    @property
    def key_id(self) -> str:
        return key_id(self.key)

    def make_key(self) -> None:
        self.commands("keys", "new", self.key, uid=self.uid)

    def sign_permit(self, draft: Mapping[str, object], key: Path | None = None) -> Path:
        """Sign what one was asked for; the signed permit. `key` is another than one's own."""
        asked, signed = (self.folder / f"{draft['permit']}.{kind}" for kind in ("json", "jws"))
        asked.write_text(json.dumps(draft, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        give(asked, self.uid)
        self.commands("permit", "sign", asked, "--key", key or self.key, "--out", signed, uid=self.uid)
        return signed

    def sign_revocations(self, number: int, *revoked: str) -> Path:
        """The list of that number of the permits that no longer hold. Without a fresh one every node refuses."""
        signed, before = (self.folder / f"revocations-{each}.jws" for each in (number, number - 1))
        named = [word for permit in revoked for word in ("--permit", permit)]
        earlier = ["--previous", before] if number > 1 else []
        self.commands("permit", "revocations", *named, *earlier, "--key", self.key, "--out", signed, uid=self.uid)
        return signed

    def order(
        self,
        run: str,
        permit: Path,
        image: str,
        sites: Sequence[str],
        rounds: int,
        config: str = "{}",
        key: Path | None = None,
    ) -> Path:
        """A signed run order. `config` is JSON; `key` is another than one's own."""
        signed = self.folder / f"order-{run}.jws"
        named = [word for site in sites for word in ("--site", site)]
        self.commands(
            "job", "order", "--permit", permit, "--run", run, "--image", image, *named, "--rounds", rounds,
            "--config", config, "--key", key or self.key, "--out", signed, uid=self.uid,
        )  # fmt: skip
        return signed


def public(key: Path) -> str:
    """What belongs to a key file, to hand out."""
    return Path(f"{key}.pub").read_text(encoding="ascii").strip()


def key_id(key: Path) -> str:
    return VerifyKey.from_text(public(key)).key_id
