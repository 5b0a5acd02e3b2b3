"""The people who sign: the Access Committee, the researcher, and a steward at each hospital.

Each has a folder and (as root) an account of their own; what they send each other lies in `post/`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.workplace import Account, Workplace
from deploy.driver.commands import Commands, as_user
from deploy.driver.signing import Signer


@dataclass
class People:
    """Everybody who signs."""

    place: Workplace
    committee: Signer
    researcher: Signer
    stewards: dict[str, Signer]

    @classmethod
    def at(cls, place: Workplace, commands: Commands, sites: Sequence[str]) -> People:
        return cls(
            place,
            Signer(commands, place.committee, "committee", place.committee_account.uid),
            Signer(commands, place.researcher, "researcher", place.researcher_account.uid),
            {site: Signer(commands, place.steward(site), "steward") for site in sites},
        )

    def everybody(self) -> list[Signer]:
        return [self.committee, self.researcher, *self.stewards.values()]

    def post(self, file: Path) -> Path:
        """Copy a public document into `post/`, where every party can read it."""
        copy = self.place.post / file.name
        copy.write_bytes(file.read_bytes())
        copy.chmod(0o644)
        return copy

    def sign_permit(self, draft: Mapping[str, object]) -> Path:
        """The committee signs what it was asked for; the signed permit in `post/`."""
        return self.post(self.committee.sign_permit(draft))

    def sign_revocations(self, number: int) -> Path:
        """The committee says which permits no longer hold: here none."""
        return self.post(self.committee.sign_revocations(number))

    def order(self, run: str, permit: Path, image: str, sites: Sequence[str], rounds: int, config: str = "{}") -> Path:
        """The researcher signs a run order; it lies in `post/`."""
        return self.post(self.researcher.order(run, permit, image, sites, rounds, config))

    def closed_to(self, stranger: Account) -> bool | None:
        """Whether a process of `stranger` is refused the committee's key; `None` where all share one account."""
        if stranger.uid is None:
            return None
        look = [sys.executable, "-I", "-c", "import sys; open(sys.argv[1]).read()", str(self.committee.key)]
        tried = subprocess.run(look, capture_output=True, cwd="/", check=False, **as_user(stranger.uid))
        return b"PermissionError" in tried.stderr
