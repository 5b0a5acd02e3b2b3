"""Where a run continues from: the model after each round, and the history up to it, as files.

`<run>/initial.safetensors` came with the order; `<run>/round-0003.safetensors` and `round-0003.json` are written after
round 3, the JSON last, so that a round without it never happened. The hub draws no random number in a round (every
site of the order takes part), so there is no random state to keep.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from durable.files import replace_file
from federation.files import make_folder
from mediator import canonical
from mediator.errors import IntegrityBroken

_NAME = re.compile(r"round-([0-9]{4,9})\.json")
_INITIAL = "initial.safetensors"


@dataclass(frozen=True)
class RoundCheckpoint:
    """What stands in `round-NNNN.json`. `history` is the canonical JSON text of the rounds so far."""

    KIND: ClassVar[str] = "cloister.round-checkpoint"
    VERSION: ClassVar[int] = 1

    run: str
    round: int
    attempt: int
    model_sha256: str
    written: datetime
    history: str


class Checkpoints:
    """The folder `checkpoints/` of the hub's state."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put_initial(self, run: str, model: bytes) -> None:
        """Keep the untrained model (canonical safetensors)."""
        replace_file(make_folder(self._folder / run) / _INITIAL, model)

    def put(self, checkpoint: RoundCheckpoint, model: bytes) -> None:
        """Keep a round: first the model, then what makes it count."""
        folder = make_folder(self._folder / checkpoint.run)
        stem = f"round-{checkpoint.round:04d}"
        replace_file(folder / f"{stem}.safetensors", model)
        replace_file(folder / f"{stem}.json", canonical.encode(checkpoint))

    def latest(self, run: str) -> tuple[int, bytes]:
        """(last completed round, its model): round -1 with the untrained model before the first evaluation.

        Raises `IntegrityBroken` when a model is not what its checkpoint says.
        """
        folder = self._folder / run
        found = {int(match[1]): path for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))}
        if not found:
            return -1, (folder / _INITIAL).read_bytes()
        number = max(found)
        return number, self.after(run, number)

    def after(self, run: str, round_: int) -> bytes:
        """The model after a round that was finished. Raises `IntegrityBroken` when it is not what was written."""
        path = self._folder / run / f"round-{round_:04d}.json"
        try:
            # as long as the rounds were many: it is our own, and written without a limit
            written = path.read_bytes()
            checkpoint = canonical.decode(RoundCheckpoint, written, limit=len(written))
            model = path.with_suffix(".safetensors").read_bytes()
        except FileNotFoundError:
            raise IntegrityBroken(f"the checkpoint of round {round_} is not there") from None
        whole = hashlib.sha256(model).hexdigest() == checkpoint.model_sha256
        if (checkpoint.run, checkpoint.round) != (run, round_) or not whole:
            raise IntegrityBroken(f"the checkpoint of round {round_} is not what was written")
        return model

    def model(self, run: str, round_: int) -> bytes:
        """The model after a round."""
        return (self._folder / run / f"round-{round_:04d}.safetensors").read_bytes()


def history_text(rounds: list[dict[str, Any]]) -> str:
    return canonical.dumps(rounds).decode("utf-8")
