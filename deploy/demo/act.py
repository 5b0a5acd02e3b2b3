"""The closing act: six attempts at what must not be, each on the real parts, each with the proof that it was refused.

Nothing here decides that something was refused. A proof is a record in a hospital's own audit log, newer than the
attempt and about exactly this attempt, or the alert that came over the hub's real socket.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
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
from deploy.driver.signing import Signer
from mediator.signatures import VerifyKey

PROOF_WITHIN_S = 45.0
ROGUE = "rogue-permit"
ROGUE_HUB = Path(__file__).resolve().parents[2] / "tests" / "federation" / "rogue_hub.py"


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
        """All six attempts; one that cannot be made counts as not refused, and says why.

        The forged documents come last: they lie in the hub's own database then, and break it for every later run.
        """
        first, second, third = self.hospitals
        self._attempt(self._without_certificate, "client_without_certificate")
        with ThreadPoolExecutor(2) as pool:
            misbehaving = pool.submit(
                self._attempt, lambda: self._misbehave(first, second), "extra_tensor", "hidden_bytes"
            )
            self._attempt(lambda: self._instruct(third), "replayed_instruction", "run_without_permit")
            misbehaving.result()
        self._attempt(self._forge, "hub_without_keys")

    def _attempt(self, play: Callable[[], None], *names: str) -> None:
        try:
            play()
        except DemoFailed as failed:
            for name in names:
                self.report.evidence.setdefault(name, {"why": failed.message})
        for name in names:
            verdict = "refused" if self.report.refusals[name] else "NOT REFUSED"
            self.phase.say(
                f"{REFUSALS[name].title}: {verdict}", style="green" if self.report.refusals[name] else "bold red"
            )

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

    # ---- a replayed instruction, and a run without a permit

    def _instruct(self, site: str) -> None:
        """The hub's own parts send a genuine, already served instruction once more; then one that the hub signs for a
        run that nobody ordered, under a permit that nobody gave."""
        hospital = self.hospitals[site]
        before = evidence.last_sequence(hospital.audit)
        heard = self.hub.misbehave(ROGUE_HUB, "instructions", site, self.main_run, self.model)
        replayed = self._wait(hospital, before, {"instruction_replayed"}, f"{self.main_run}/")
        self._prove("replayed_instruction", replayed, the_hub_heard=heard["replay"])
        alone = self._wait(hospital, before, {"permit_missing"}, "no-such-run/")
        self._prove("run_without_permit", alone, the_hub_heard=heard["no-permit"])

    # ---- a hub without keys

    def _forge(self) -> None:
        """The hub signs a permit and a run order with the only key it has and sends both to every hospital."""
        before = {site: evidence.last_sequence(hospital.audit) for site, hospital in self.hospitals.items()}
        own = VerifyKey.from_text(self.hub.public_key("instruction"))
        image = self.images["cloister-job-torch"]
        draft = self.draft("forged-permit", image=image, issuer=own.key_id, researchers=[own.text])
        hub, key = Signer(self.hub.commands, self.hub.folder, "hub", self.hub.uid), self.hub.instruction_key
        permit = hub.sign_permit(draft, key)
        order = hub.order("forged", permit, image, list(self.hospitals), 1, permits.TRAINING, key)
        self.hub.misbehave(ROGUE_HUB, "publish", permit, order)
        first, second = (self._everywhere(before, f"document/{_digest(text)}") for text in (permit, order))
        self._prove("hub_without_keys", first if second else None, order_in_record=second.sequence if second else None)

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
            hospital.approve_image(image)
            hospital.accept(ROGUE)
            before = evidence.last_sequence(hospital.audit)
            config = json.dumps({"misbehave": trick})
            self.hub.submit(self.people.order(run, permit, image, [site], 1, config), self.model)
            self._prove(name, self._wait(hospital, before, codes, f"{run}/"))

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(play, plays))

    # ---- looking for proof

    def _wait(self, hospital: Hospital, after: int, codes: Iterable[str], about: str) -> Refused | None:
        wanted = set(codes)
        return evidence.wait_for(
            lambda: evidence.find_refusal(hospital.site, evidence.records(hospital.audit, after), wanted, about=about),
            within_s=PROOF_WITHIN_S,
        )

    def _everywhere(self, after: Mapping[str, int], about: str) -> Refused | None:
        """The proof of the first hospital that a document signed by a stranger was refused, once all have one."""
        found = [self._wait(each, after[site], {"untrusted_key"}, about) for site, each in self.hospitals.items()]
        return found[0] if all(found) else None


def _digest(signed: Path) -> str:
    """How an audit record names a stranger's document: by the hash of its text."""
    return hashlib.sha256(signed.read_text(encoding="ascii").strip().encode("ascii")).hexdigest()
