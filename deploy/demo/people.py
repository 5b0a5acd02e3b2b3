"""The people who sign: the Access Committee, the researcher, and a steward at each hospital.

Each has a folder and (as root) an account of their own; what they send each other lies in `post/`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.programs import Programs
from deploy.demo.workplace import Account, Workplace, write_json
from mediator.signatures import VerifyKey


@dataclass
class Person:
    """Somebody with a key file."""

    programs: Programs
    folder: Path
    account: Account
    name: str

    @property
    def key(self) -> Path:
        return self.folder / f"{self.name}.key"

    @property
    def public_key(self) -> str:
        """64 hexadecimal digits, to hand out."""
        return Path(f"{self.key}.pub").read_text(encoding="ascii").strip()

    @property
    def key_id(self) -> str:
        return VerifyKey.from_text(self.public_key).key_id

    def make_key(self) -> None:
        self.programs("keys", "new", self.key, account=self.account)


@dataclass
class People:
    """Everybody who signs."""

    programs: Programs
    place: Workplace
    committee: Person
    researcher: Person
    stewards: dict[str, Person]

    @classmethod
    def at(cls, place: Workplace, programs: Programs, sites: Sequence[str]) -> People:
        return cls(
            programs,
            place,
            Person(programs, place.committee, place.committee_account, "committee"),
            Person(programs, place.researcher, place.researcher_account, "researcher"),
            {site: Person(programs, place.steward(site), Account(None), "steward") for site in sites},
        )

    def everybody(self) -> list[Person]:
        return [self.committee, self.researcher, *self.stewards.values()]

    def post(self, file: Path) -> Path:
        """Copy a public document into `post/`, where every party can read it."""
        copy = self.place.post / file.name
        copy.write_bytes(file.read_bytes())
        copy.chmod(0o644)
        return copy

    def sign_permit(self, draft: Mapping[str, object]) -> Path:
        """The committee signs what it was asked for; returns the signed permit in `post/`."""
        name = f"{draft['permit']}-{draft['permit_version']}"
        committee = self.committee
        asked = committee.folder / f"{name}.json"
        self.place.give(write_json(asked, draft), committee.account)
        signed = committee.folder / f"{name}.jws"
        self.programs("permit", "sign", asked, "--key", committee.key, "--out", signed, account=committee.account)
        return self.post(signed)

    def sign_revocations(self, number: int) -> Path:
        """The committee says which permits no longer hold: here none. Without a fresh list every node refuses."""
        committee = self.committee
        signed = committee.folder / f"revocations-{number}.jws"
        self.programs(
            "permit", "revocations", "--number", number, "--key", committee.key, "--out", signed,
            account=committee.account,
        )  # fmt: skip
        return self.post(signed)

    def order(self, run: str, permit: Path, image: str, sites: Sequence[str], rounds: int, config: str = "{}") -> Path:
        """The researcher signs a run order; returns it in `post/`."""
        researcher = self.researcher
        signed = researcher.folder / f"{run}.jws"
        named = [word for site in sites for word in ("--site", site)]
        self.programs(
            "job", "order", "--permit", permit, "--run", run, "--image", image, *named, "--rounds", rounds,
            "--config", config, "--strategy", "fedavg", "--key", researcher.key, "--out", signed,
            account=researcher.account,
        )  # fmt: skip
        return self.post(signed)

    def closed_to(self, stranger: Account) -> bool | None:
        """Whether a process of `stranger` is refused the committee's key; `None` where all share one account."""
        if stranger.uid is None:
            return None
        look = [sys.executable, "-I", "-c", "import sys; open(sys.argv[1]).read()", str(self.committee.key)]
        tried = subprocess.run(look, capture_output=True, cwd="/", check=False, **stranger.subprocess_options)  # type: ignore[call-overload]
        return b"PermissionError" in tried.stderr
