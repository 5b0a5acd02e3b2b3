"""The closing act: six attempts at what must not be, each on the real parts, each with the proof that it was refused.

Nothing here decides that something was refused. A proof is a record in a hospital's own audit log, newer than the
attempt and about exactly this attempt, or the alert that came over the hub's real socket.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.demo import evidence, permits
from deploy.demo.evidence import Refused
from deploy.demo.failures import DemoFailed
from deploy.demo.hospital import Hospital
from deploy.demo.hub import HOST, Hub
from deploy.demo.people import People
from deploy.demo.report import REFUSALS, Report
from deploy.demo.show import Phase
from deploy.demo.workplace import write_json
from mediator.signatures import VerifyKey

PROOF_WITHIN_S = 45.0
FORGED, ROGUE = "forged-permit", "rogue-permit"


@dataclass
class Act:
    """Who takes part, and what the attempts are made with. `draft` makes a permit draft for an image."""

    hub: Hub
    people: People
    hospitals: Mapping[str, Hospital]
    report: Report
    phase: Phase
    model: Path
    main_run: str
    images: Mapping[str, str]
    draft: Callable[..., dict[str, Any]]

    def play(self) -> None:
        """All six attempts; one that cannot be made counts as not refused, and says why."""
        first, second, third = self.hospitals
        with ThreadPoolExecutor(4) as pool:
            attempts = [
                pool.submit(self._attempt, self._without_certificate, "client_without_certificate"),
                pool.submit(self._attempt, lambda: self._replay(third), "replayed_instruction"),
                pool.submit(self._attempt, self._forge, "hub_without_keys", "run_without_permit"),
                pool.submit(self._attempt, lambda: self._misbehave(first, second), "extra_tensor", "hidden_bytes"),
            ]
            for attempt in attempts:
                attempt.result()

    def _attempt(self, play: Callable[[], None], *names: str) -> None:
        try:
            play()
        except DemoFailed as failed:
            for name in names:
                self.report.evidence.setdefault(name, {"why": failed.message})
        for name in names:
            verdict = "refused" if self.report.refusals[name] else "NOT REFUSED"
            self.phase.say(f"{REFUSALS[name]}: {verdict}", style="green" if self.report.refusals[name] else "bold red")

    def _prove(self, name: str, proof: Refused | None, **more: object) -> None:
        if proof is None:
            self.report.evidence[name] = {"why": "no record of a refusal in the audit log"}
            return
        self.report.refusals[name] = True
        self.report.evidence[name] = proof.plain() | more

    # ---- a client without a certificate

    def _without_certificate(self) -> None:
        """The alert, and on the same socket a node's own certificate as positive control."""
        name, outsider = "client_without_certificate", self.report.outsider
        alert = evidence.alert_without_certificate(HOST, self.hub.port, Path(outsider["ca"]))
        status = evidence.status_with_certificate(
            HOST, self.hub.port, Path(outsider["ca"]), Path(outsider["certificate"]), Path(outsider["key"])
        )
        self.report.refusals[name] = "ALERT" in alert.upper() and status > 0
        self.report.evidence[name] = {"tls_alert": alert, "status_with_a_nodes_certificate": status}

    # ---- a replayed instruction

    def _replay(self, site: str) -> None:
        """The hub's own parts send a genuine, already served instruction once more."""
        hospital = self.hospitals[site]
        before = evidence.last_sequence(hospital.audit_dir)
        command = [sys.executable, "-P", "-m", "deploy.demo.rogue_hub"]
        words = [str(self.hub.state), site, self.main_run, str(self.model)]
        done = subprocess.run([*command, *words], capture_output=True, text=True, check=False, timeout=120)
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
            raise DemoFailed(f"the replay could not be sent: {said[0]}", self.hub.programs.hint)
        sent = json.loads(done.stdout)
        proof = self._wait(hospital, before, {"instruction_replayed"}, sent["instruction"])
        self._prove("replayed_instruction", proof, the_hub_heard=sent["answer"])

    # ---- a hub without keys, and a run without a permit

    def _forge(self) -> None:
        """The hub signs a permit and a run order with the only key it has, publishes both, and starts the run.

        The researcher is deceived as well and signs an order under that permit: now the signature is good, but no
        hospital has such a permit.
        """
        before = {site: evidence.last_sequence(hospital.audit_dir) for site, hospital in self.hospitals.items()}
        own = VerifyKey.from_text(self.hub.public_key("instruction"))
        image = self.images["cloister-job-torch"]
        people = [self.people.researcher.public_key, own.text]
        draft = self.draft(FORGED, image=image, issuer=own.key_id, researchers=people)
        permit = self._sign_as_hub(draft)
        self.hub.publish_permit(permit)
        order = self._order_as_hub(permit, image)
        self.hub.submit(order, self.model)
        proofs = [self._first(before, {"untrusted_key"}, f"document/{_digest(text)}") for text in (permit, order)]
        if all(proofs) and proofs[0] and proofs[1]:
            self._prove("hub_without_keys", proofs[0], order_refused_in_record=proofs[1].sequence)
        run = "no-permit"
        self.hub.submit(self.people.order(run, permit, image, list(self.hospitals), 1, permits.TRAINING), self.model)
        self._prove("run_without_permit", self._first(before, {"permit_missing"}, f"{run}/"))

    def _sign_as_hub(self, draft: dict[str, Any]) -> Path:
        asked, signed = self.hub.place.hub / "forged.json", self.hub.place.hub / "forged-permit.jws"
        self.hub.place.give(write_json(asked, draft), self.hub.account)
        sign = ("permit", "sign", asked, "--key", self.hub.instruction_key, "--out", signed)
        self.hub.programs(*sign, account=self.hub.account)
        return self.people.post(signed)

    def _order_as_hub(self, permit: Path, image: str) -> Path:
        signed = self.hub.place.hub / "forged-order.jws"
        sites = [word for site in self.hospitals for word in ("--site", site)]
        self.hub.programs(
            "job", "order", "--permit", permit, "--run", "forged", "--image", image, *sites, "--rounds", 1,
            "--config", permits.TRAINING, "--key", self.hub.instruction_key, "--out", signed,
            account=self.hub.account,
        )  # fmt: skip
        return signed

    # ---- outputs that no permit names

    def _misbehave(self, first: str, second: str) -> None:
        """A real permit, a real run, a real container: and an output that gate 2 must not let pass."""
        plays = {
            "extra_tensor": (first, "extra-tensor", {"tensor_not_permitted"}),
            "hidden_bytes": (second, "trailing-bytes", {"trailing_bytes", "tensor_offsets"}),
        }
        image = self.images["cloister-job-rogue"]
        permit = self.people.sign_permit(self.draft(ROGUE, image=image, config=permits.ROGUE_CONFIG))
        self.hub.publish_permit(permit)

        def play(name: str) -> None:
            site, trick, codes = plays[name]
            hospital, run = self.hospitals[site], f"rogue-{trick}"
            hospital.accept(ROGUE)
            before = evidence.last_sequence(hospital.audit_dir)
            config = json.dumps({"misbehave": trick})
            self.hub.submit(self.people.order(run, permit, image, [site], 1, config), self.model)
            self._prove(name, self._wait(hospital, before, codes, f"{run}/"))

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(play, plays))

    # ---- looking for proof

    def _wait(self, hospital: Hospital, after: int, codes: Iterable[str], about: str) -> Refused | None:
        wanted = set(codes)
        return evidence.wait_for(
            lambda: evidence.find_refusal(
                hospital.site, evidence.records(hospital.audit_dir, after), wanted, about=about
            ),
            within_s=PROOF_WITHIN_S,
        )

    def _first(self, after: Mapping[str, int], codes: Iterable[str], about: str) -> Refused | None:
        """The proof of the first hospital, once every hospital has one."""
        found: Sequence[Refused | None] = [
            self._wait(hospital, after[site], codes, about) for site, hospital in self.hospitals.items()
        ]
        return found[0] if all(found) else None


def _digest(signed: Path) -> str:
    """How an audit record names a stranger's document: by the hash of its text."""
    return hashlib.sha256(signed.read_text(encoding="ascii").strip().encode("ascii")).hexdigest()
