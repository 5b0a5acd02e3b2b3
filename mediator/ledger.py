"""What is left of a permit and of a dataset: rounds, bytes, attempts, epsilon. Facts in, reasons of refusal out.

The unit of epsilon is one dataset *name* at one site, with all its versions: they hold the same patients. Whatever
left it with noise counts, whatever run asked, whether its job went well, and under whatever permit. Composing is the
caller's (dp-accounting); what is compared with what is decided here.
"""

from __future__ import annotations

from dataclasses import dataclass

from mediator.errors import Code, Reason
from mediator.permit import EnforcedPermit
from mediator.types import Acceptance, DataPermit, Instruction, Kind

# A round may fail for a reason that goes away: memory, a full disk, a stop by the staff. What fails three times is
# mended at home, and every further answer would be a word of the job's choice to the hub.
MAXIMUM_ATTEMPTS = 3


@dataclass(frozen=True)
class PriorRelease:
    """The release already made for this (run, round, task), and the model it was computed from."""

    id: str
    model_sha256: str


@dataclass(frozen=True)
class Ledger:
    """The durable ledger at one moment, as far as it concerns this instruction.

    Of the permit (all versions): `rounds_charged` as (run, round) pairs and `bytes_charged`. Of the run:
    `dataset_version`, the one its earlier rounds used. Of this (run, round, task): whether it is `task_charged`, the
    `last_attempt` that was admitted (0: none), `attempts_started`, how many others than this reached a container, and
    its `release`; of an analysis whether its files are `held` already.
    """

    rounds_charged: frozenset[tuple[str, int]] = frozenset()
    bytes_charged: int = 0
    dataset_version: str | None = None
    task_charged: bool = False
    last_attempt: int = 0
    attempts_started: int = 0
    release: PriorRelease | None = None
    held: bool = False


@dataclass(frozen=True)
class Spending:
    """What a dataset, by its name, will have cost in epsilon once this task is charged too.

    `under_permit`: every noised output under this permit, at its delta; `under_all`: every one under any permit, at
    the hospital's. None where nobody accounted. `had_budget`: noise was added to an output before, or a permit with a
    privacy budget was ever accepted for one of its versions.
    """

    under_permit: float | None
    under_all: float | None
    had_budget: bool


def noise_of(permit: EnforcedPermit, task: Kind) -> float | None:
    """The noise multiplier of what a task of this kind releases; None where no noise is added."""
    privacy = permit.terms.privacy
    return None if privacy is None or task is not Kind.TRAIN else privacy.noise_multiplier


def check_attempts(ledger: Ledger) -> list[Reason]:
    """Why a task gets no further attempt at a container; what was released is delivered again all the same."""
    if ledger.release is None and ledger.attempts_started >= MAXIMUM_ATTEMPTS:
        return [Reason(Code.ATTEMPTS_EXHAUSTED, f"{MAXIMUM_ATTEMPTS} attempts reached a container")]
    return []


def is_protected(permit: DataPermit, acceptance: Acceptance, *, had_budget: bool) -> bool:
    """Whether exact values of a dataset that `had_budget` may not leave under a permit: what the budget promises would
    be gone with the first."""
    return permit.privacy is None and had_budget and not acceptance.unprotected


def check_protected(spending: Spending, permit: EnforcedPermit) -> list[Reason]:
    """Why exact values of this dataset may not leave (`is_protected`)."""
    if is_protected(permit.terms, permit.accepted, had_budget=spending.had_budget):
        why = "a permit with a privacy budget covers this dataset, and exact values would leave under this one"
        return [Reason(Code.DATASET_PROTECTED, f"{why}: cloister node permit accept --unprotected lets them")]
    return []


def check_left(
    ledger: Ledger,
    spending: Spending,
    permit: EnforcedPermit,
    instruction: Instruction,
    size_bytes: int,
    epsilon_total: float,
) -> list[Reason]:
    """Why a task that was not charged yet cannot be: rounds, bytes, the permit's epsilon, the hospital's."""
    reasons = []
    if (instruction.run, instruction.round) not in ledger.rounds_charged:
        # first looks (round 0) are counted by themselves: they cost no training round, and are as limited
        first = instruction.round == 0
        charged = sum(1 for _, number in ledger.rounds_charged if (number == 0) == first)
        if charged >= permit.terms.maximum_rounds:
            reasons.append(Reason(Code.ROUNDS_EXHAUSTED, f"all {permit.terms.maximum_rounds} are charged"))
    if ledger.bytes_charged + size_bytes > permit.terms.byte_budget:
        reasons.append(Reason(Code.BYTES_EXHAUSTED, f"{size_bytes} more would pass {permit.terms.byte_budget}"))
    if permit.terms.privacy is not None and noise_of(permit, instruction.task) is not None:
        granted = permit.terms.privacy.epsilon
        if not _within(spending.under_permit, granted):
            reasons.append(Reason(Code.EPSILON_EXHAUSTED, f"the permit's budget for a dataset is {granted:g}"))
        if not _within(spending.under_all, epsilon_total):
            why = f"[privacy] epsilon_total: all permits together may spend {epsilon_total:g} on a dataset"
            reasons.append(Reason(Code.EPSILON_EXHAUSTED, why))
    return reasons


def _within(spent: float | None, budget: float) -> bool:
    return spent is not None and spent <= budget  # not accounted, or NaN: no
