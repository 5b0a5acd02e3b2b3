"""What Flower's rounds ask of the hub's own side, as a protocol: whom to instruct, what to make of a reply.

`conductor.Conductor` implements it over `hub.db`; `flower` drives it. Nothing here knows `flwr`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from federation.arrays import Array
from mediator.errors import CloisterError
from mediator.types import Kind, ReleaseEnvelope

Metrics = Mapping[str, float | int]


class RunStopped(CloisterError):
    """A run cannot go on: too few sites, or asked to stop. Its checkpoints stay; it can be resumed."""

    code = "run_stopped"
    exit_code = 3


class Interrupted(CloisterError):
    """The hub itself is going down; the run continues at its next start."""

    code = "interrupted"
    exit_code = 5


class ReplyVerdict(Enum):
    """What becomes of a reply: it counts, its site is out of this round, or the site is asked again."""

    USED = "used"
    OUT = "out"
    AGAIN = "again"


@dataclass(frozen=True)
class Reply:
    """A site's answer, taken apart. `refusal` is an error's text (not trusted), `away` Flower's own "not there".

    `root` is the id of the RecordDict computed from what was read, not the id it was sent under.
    """

    site: str
    refusal: str | None = None
    away: bool = False
    root: str = ""
    tensors: Mapping[str, Array] | None = None
    metrics: Metrics | None = None
    malformed: bool = False


class Steering(Protocol):
    """One run, as Flower's side sees it. `flower_keys` maps each enrolled site to its Flower public key (PEM)."""

    flower_keys: Mapping[str, bytes]
    poll_s: float
    timeout_s: float

    def begin(self, round_: int, task: Kind, model: Mapping[str, Array]) -> None:
        """A round's training or evaluation begins with this model."""

    def patience_s(self, site: str) -> float:
        """How long `site` is waited for while it is not connected: not at all where it was missing from the task before
        this one, and the others are enough."""

    def waiting(self, sites: Sequence[str]) -> None:
        """These sites are not connected and are waited for; empty when all are."""

    def instruct(self, site: str, *, again: bool) -> str:
        """A signed instruction for the task that has begun; a new attempt when `again`."""

    def envelope(self, site: str) -> ReleaseEnvelope | None:
        """The envelope received for the newest instruction of `site`."""

    def judge(self, reply: Reply) -> tuple[ReplyVerdict, float]:
        """What becomes of a reply, and after how many seconds its site is asked again."""

    def missing(self, site: str, *, absent: bool) -> None:
        """The task goes on without `site`: it was not connected (`absent`), or did not answer in time."""

    def enough(self, sites: Sequence[str]) -> None:
        """Raises `RunStopped` unless these sites' replies, be they there or only hoped for, are enough to go on."""

    def nap(self, seconds: float) -> bool:
        """Wait; true when something happened meanwhile. Raises `Interrupted` or `RunStopped` when told to end."""

    def wake(self, sites: Sequence[str]) -> None:
        """Tell these sites that an instruction waits for them."""

    def trained(self, model: Mapping[str, Array]) -> dict[str, Array]:
        """The aggregated model in the permit's types; every later message carries what is returned."""

    def evaluated(self) -> None:
        """The evaluation's replies are all in."""

    def round_done(self, round_: int, model: Mapping[str, Array]) -> None:
        """Keep model and history; from here the run continues after any crash."""
