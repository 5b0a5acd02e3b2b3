"""A hub that misbehaves, through the real one: its SuperLink, keys and database. For tests and the demo's last act.

    python -m tests.federation.rogue_hub HUB.toml no-permit SITE MODEL.safetensors
    python -m tests.federation.rogue_hub HUB.toml replay SITE RUN
    python -m tests.federation.rogue_hub HUB.toml instructions SITE RUN MODEL.safetensors
    python -m tests.federation.rogue_hub HUB.toml publish FILE.jws …

The first two print what the node answered, as JSON: {"refused": "refused_instruction"}, or {"refused": null} when it
served; the third does both in one start, and prints {"replay": …, "no-permit": …}. The hub must be running and no run
just being opened. Nothing of this is in the product.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file
from sqlalchemy import select

from federation.arrays import Array
from federation.hub.config import load_config
from federation.hub.state import HubState
from federation.hub.steering import Reply, ReplyVerdict
from federation.hub.tables import HubDocumentRow, HubInstructionRow
from mediator import tensors
from mediator.canonical import print_time
from mediator.signatures import peek_kind
from mediator.types import Instruction, Kind, ReleaseEnvelope

# Flower takes longer to load than a forged document to be put down: who sends something loads it
if TYPE_CHECKING:
    from flwr.app import ArrayRecord

    from federation.hub.flower.superlink import SuperLink


@dataclass
class OneMessage:
    """`federation.hub.steering.Steering` for a single message to a single site."""

    site: str
    signed: str
    flower_keys: Mapping[str, bytes]
    poll_s: float = 0.02
    timeout_s: float = 30.0
    heard: list[Reply] = field(default_factory=list)

    def begin(self, round_: int, task: Kind, model: Mapping[str, Array]) -> None: ...

    def patience_s(self, site: str) -> float:
        return self.timeout_s

    def waiting(self, sites: Sequence[str]) -> None: ...

    def instruct(self, site: str, *, again: bool) -> str:
        return self.signed

    def envelope(self, site: str) -> ReleaseEnvelope | None:
        return None

    def judge(self, reply: Reply) -> tuple[ReplyVerdict, float]:
        self.heard.append(reply)
        return ReplyVerdict.OUT, 0.0

    def missing(self, site: str, *, absent: bool) -> None:
        self.heard.append(Reply(site, refusal="no answer"))

    def enough(self, sites: Sequence[str]) -> None: ...

    def nap(self, seconds: float) -> bool:
        time.sleep(seconds)
        return False

    def wake(self, sites: Sequence[str]) -> None: ...

    def trained(self, model: Mapping[str, Array]) -> dict[str, Array]:
        raise AssertionError("one message is not a round")

    def evaluated(self) -> None: ...

    def round_done(self, round_: int, model: Mapping[str, Array]) -> None: ...


class RogueHub:
    """What a hub can try with its own keys and its own SuperLink, but without the committee's or a researcher's."""

    def __init__(self, config: Path) -> None:
        self.hub = HubState(load_config(config))

    def send(self, site: str, signed: str, model: Mapping[str, Array] | ArrayRecord) -> str | None:
        """Send `signed` with `model` to `site` for training; the refusal's text, or None when the node served it."""
        from flwr.app import ArrayRecord

        from federation.hub.flower.grid import to_record
        from federation.hub.flower.strategy import FlowerRun, SignedFedAvg

        steering = OneMessage(site, signed, {site: self.hub.registry.active()[site].flower_key})
        run = FlowerRun(self._superlink())
        try:
            strategy = SignedFedAvg(steering, 0, run.run_id, run._task_id)
            strategy._task, strategy._round = Kind.TRAIN, 1
            strategy._arrays = model if isinstance(model, ArrayRecord) else to_record(model)
            strategy.exchange(run._grid, ())
        finally:
            run.close(completed=True)
        return steering.heard[-1].refusal

    def instruct(self, site: str, model: Mapping[str, Array], run: str = "no-such-run") -> str:
        """A properly signed instruction for a run that nobody ordered, under a permit that nobody gave."""
        now = self.hub.clock()
        instruction = Instruction(
            run=run,
            permit="no-such-permit",
            permit_version=1,
            site=site,
            round=1,
            task=Kind.TRAIN,
            attempt=1,
            config={},
            model_sha256=hashlib.sha256(tensors.encode(dict(model))).hexdigest(),
            issued=now,
            expires=now + timedelta(minutes=10),
        )
        return self.hub.instruction_key.sign(instruction)

    def replay(self, site: str, run: str) -> str | None:
        """Send the run's first training instruction to `site` once more, the very same text with the same model."""
        with self.hub.database.read() as session:
            query = select(HubInstructionRow).where(
                HubInstructionRow.site == site, HubInstructionRow.run == run, HubInstructionRow.task == Kind.TRAIN.value
            )
            row = session.scalars(query.order_by(HubInstructionRow.round, HubInstructionRow.attempt)).first()
            assert row is not None, "this run has sent no training instruction to this site"
            signed, round_ = row.text, row.round
        permit = self.hub.documents.open_order(self.hub.documents.order_text(run))[1]
        model = tensors.parse(self.hub.checkpoints.model(run, round_ - 1), permit.tensors)
        return self.send(site, signed, model)

    def publish(self, text: str) -> None:
        """Publish a signed document past every check that the hub's own desk makes."""
        kind, now = peek_kind(text), self.hub.clock()
        with self.hub.database.write() as session:
            session.add(
                HubDocumentRow(
                    kind=kind,
                    name=f"rogue-{now.timestamp()}",
                    sha256="00" * 32,
                    key_id="rogue",
                    received=print_time(now),
                    expires=print_time(now + timedelta(days=1)),
                    text=text,
                )
            )
        self.hub.notify()

    def _superlink(self) -> SuperLink:
        from federation.hub.flower.superlink import SuperLink

        folder = self.hub.config.state_dir / "superlink"
        return SuperLink(folder / "superlink.sock", (folder / "executor.secret").read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description="a hub that misbehaves, for the demo's last act")
    parser.add_argument("config", type=Path)
    acts = parser.add_subparsers(dest="act", required=True)
    no_permit = acts.add_parser("no-permit")
    no_permit.add_argument("site")
    no_permit.add_argument("model", type=Path)
    replay = acts.add_parser("replay")
    replay.add_argument("site")
    replay.add_argument("run")
    both = acts.add_parser("instructions")
    both.add_argument("site")
    both.add_argument("run")
    both.add_argument("model", type=Path)
    publish = acts.add_parser("publish")
    publish.add_argument("files", type=Path, nargs="+")
    given = parser.parse_args()
    rogue = RogueHub(given.config)
    if given.act == "publish":
        for file in given.files:
            rogue.publish(file.read_text("ascii").strip())
        return
    refused: dict[str, str | None] = {}
    if given.act in ("replay", "instructions"):
        refused["replay"] = rogue.replay(given.site, given.run)
    if given.act in ("no-permit", "instructions"):
        model = {name: np.asarray(array) for name, array in load_file(given.model).items()}
        refused["no-permit"] = rogue.send(given.site, rogue.instruct(given.site, model), model)
    print(json.dumps(refused if given.act == "instructions" else {"refused": refused[given.act]}))


if __name__ == "__main__":
    main()
