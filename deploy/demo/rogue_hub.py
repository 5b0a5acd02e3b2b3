"""A hub that plays an old instruction again: the hub's own parts, its own secrets, a genuine signature.

Runs as a program of its own beside the running hub: `python -m deploy.demo.rogue_hub STATE SITE RUN MODEL`. Prints
one JSON object: the instruction sent again, and what the node told the hub.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from safetensors.numpy import load_file

from federation import tls
from federation.arrays import Array
from federation.hub.flower.strategy import FlowerRun
from federation.hub.flower.superlink import SuperLink
from federation.hub.steering import Reply, RunStopped, Verdict
from mediator.types import Kind, ReleaseEnvelope

ANSWER_WITHIN_S = 30.0


class Replay:
    """`federation.hub.steering.Steering` for one message: the training instruction of round 1, once more."""

    def __init__(self, site: str, flower_key: bytes, instruction: str) -> None:
        self.flower_keys: Mapping[str, bytes] = {site: flower_key}
        self.poll_s, self.timeout_s = 0.05, ANSWER_WITHIN_S
        self.answer = ""
        self._instruction = instruction
        self._deadline = time.monotonic() + ANSWER_WITHIN_S

    def begin(self, round_: int, task: Kind, model: Mapping[str, Array]) -> None:
        pass

    def waiting(self, sites: Sequence[str]) -> None:
        pass

    def instruct(self, site: str, *, again: bool) -> str:
        return self._instruction

    def envelope(self, site: str) -> ReleaseEnvelope | None:
        return None

    def judge(self, reply: Reply) -> tuple[Verdict, float]:
        self.answer = reply.refusal or "an answer that is no refusal"
        return Verdict.OUT, 0.0

    def missing(self, site: str) -> None:
        self.answer = "no answer"

    def enough(self, used: Sequence[str]) -> None:
        raise RunStopped("one message was all")

    def nap(self, seconds: float) -> bool:
        if time.monotonic() > self._deadline:
            raise RunStopped("the node is away")
        time.sleep(seconds)
        return False

    def wake(self, sites: Sequence[str]) -> None:
        pass

    def trained(self, model: Mapping[str, Array]) -> dict[str, Array]:
        return dict(model)

    def evaluated(self) -> None:
        pass

    def round_done(self, round_: int, model: Mapping[str, Array]) -> None:
        pass


def replay(state: Path, site: str, run: str, model: Path) -> dict[str, str]:
    """Send the instruction of (run, round 1, training) to `site` once more, through the running SuperLink."""
    with closing(sqlite3.connect(f"file:{state / 'hub.db'}?mode=ro", uri=True)) as database:
        query = "SELECT instruction, text FROM instructions WHERE site=? AND run=? AND round=1 AND task='train'"
        name, text = database.execute(query, (site, run)).fetchone()
        (flower_key,) = database.execute("SELECT flower_key FROM sites WHERE site=?", (site,)).fetchone()
    folder = state / "superlink"
    context = tls.trusting_context(state / "pki" / "ca.crt")
    url = f"https://127.0.0.1:{superlink_port(folder)}"
    steering = Replay(site, flower_key.encode("ascii"), text)
    flower_run = FlowerRun(SuperLink(url, context, (folder / "executor.secret").read_bytes()))
    try:
        flower_run.conduct(steering, load_file(model), 1, 1)
    except RunStopped:
        pass
    finally:
        flower_run.close(completed=False)
    return {"instruction": name, "answer": steering.answer}


def superlink_port(folder: Path) -> int:
    """The loopback port of the SuperLink whose database lies in `folder`, from its command line (proc(5))."""
    database = str(folder / "link.db").encode()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if database in words and b"--port" in words:
            return int(words[words.index(b"--port") + 1])
    raise LookupError("no SuperLink runs on this folder")


if __name__ == "__main__":
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    state, site, run, model = sys.argv[1:]
    print(json.dumps(replay(Path(state), site, run, Path(model))))
