"""Gate 1: may this task run, here, now, on this data, for this person?

The answer is a value: `Admitted`, from which the container spec follows (`container_spec`), or `Redeliver`, when the
hub asks for what was already released. Everything else is `Denied` with every reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from mediator import canonical, tensors
from mediator.analysis import LOCAL
from mediator.errors import Code, Denied, Reason
from mediator.ledger import Ledger, Spending, check_attempts, check_left, check_protected, noise_of
from mediator.permit import EnforcedPermit, check_live, compile_permit
from mediator.policy import Policy
from mediator.revocations import Revocations
from mediator.signatures import Signed
from mediator.sizes import reserve_bytes
from mediator.terms import check_config, outside
from mediator.types import (
    CLOCK_TOLERANCE,
    Acceptance,
    ContainerSpec,
    DataPermit,
    Instruction,
    Kind,
    RunOrder,
    TensorSpec,
)

Split = Literal["train", "test"]
_SPLIT: Mapping[Kind, Split] = {Kind.TRAIN: "train", Kind.EVALUATE: "test"}


# --- what gate 1 is told ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DatasetFacts:
    """A published dataset version of this node, how many studies each split holds, and what its dataset has spent."""

    version: str
    dataset: str
    project: str
    published: datetime
    train_studies: int
    test_studies: int
    withdrawn: bool
    spending: Spending


@dataclass(frozen=True)
class NodeFacts:
    """What this node knows: its site, its audit log's newest time, the highest revocation list number it has ever
    seen, the permits it holds under the instruction's permit id, its dataset versions. Its log may have been `set_back`
    behind what others saw of it; then an epoch was `opened`, perhaps after the run's order came in (`ordered_before`).
    """

    site: str
    newest_audit: datetime | None
    highest_revocation: int
    siblings: Sequence[DataPermit]
    datasets: Sequence[DatasetFacts]
    set_back: bool = False
    opened: datetime | None = None
    ordered_before: bool = False


@dataclass(frozen=True)
class AdmissionRequest:
    """One instruction with everything gate 1 asks about. A document the node does not have is None.

    `model` is the safetensors file that came with the instruction. Every `Signed` was opened with its own key ring.
    """

    instruction: Signed[Instruction]
    model: bytes = field(repr=False)
    permit: Signed[DataPermit] | None
    acceptance: Signed[Acceptance] | None
    order: Signed[RunOrder] | None
    revocations: Revocations | None
    policy: Policy
    facts: NodeFacts
    ledger: Ledger
    now: datetime


# --- what gate 1 answers ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Charge:
    """What the ledger is to be charged before the job: once per (run, round, task), whatever becomes of it.

    `dataset` is the name; `noise_multiplier` that of what will leave, None where it leaves without noise.
    """

    run: str
    round: int
    task: Kind
    size_bytes: int
    dataset: str
    noise_multiplier: float | None


@dataclass(frozen=True)
class Admitted:
    """The verdict on a task that may run. `charge` is None where an earlier attempt was charged already.

    `byte_limit` is what its release may put on the wire; `expires` the end of permit, acceptance and run order.
    """

    permit: EnforcedPermit
    instruction: Instruction
    order: RunOrder
    dataset_version: str
    split: Split
    byte_limit: int
    charge: Charge | None
    expires: datetime


@dataclass(frozen=True)
class Redeliver:
    """Nothing runs: the release of an earlier attempt is sent again, in an envelope for this instruction."""

    permit: EnforcedPermit
    instruction: Instruction
    release: str
    byte_limit: int


def admit(request: AdmissionRequest) -> Admitted | Redeliver:
    """Gate 1. Raises `Denied` with every reason that can be told, the most telling first.

    1. The hospital is not paused; its policy allows the kind, the image and the resources. Its log was not set back,
       or has opened an epoch since, and nothing from before that is asked.
    2. Permit, acceptance and run order are there; acceptance and permit belong together (`compile_permit`).
    3. The permit is live (`check_live`).
    4. The run order is by a person the permit names, for this permit, this site, a permitted image, the permit's
       tensor schema and configuration; not more rounds than granted; not expired.
    5. The instruction is for this site, this run, this permit; in force now; of a permitted kind; its round is in
       the order, and round 0, the model before any training, is only evaluated.
    6. Its configuration is permitted, and has the order's value wherever the order has one.
    7. Its attempt is newer than any admitted for this (run, round, task), and fewer than `MAXIMUM_ATTEMPTS` of those
       reached a container.
    8. The model is the one it names, and fits the permit's schema.
    9. If this (run, round, task) was released already: from the same model it is delivered again, from another
       it is refused; one round gives one release.
       So does an analysis whose files are in the airlock: one order gives one set of files.
    10. There is a dataset version that permit and acceptance cover, of the permit's project, not withdrawn, with
       enough studies in the split of this kind; later rounds stay with the version of the first. Where its dataset
       has a privacy budget under any permit, what leaves has noise, or the acceptance says `unprotected`.
    11. Rounds, bytes and epsilon are left: epsilon of this permit, and of all permits together, for the dataset.
    12. The site's hours are open, or open before the instruction expires; until then the task waits in the queue.

    An analysis is a task like the others. Its instruction comes from this node itself (whoever opens it has checked
    the signature), it has no model, and its order says `LOCAL` and one round; other tasks have another strategy.
    """
    if request.permit is None or request.acceptance is None or request.order is None:  # (2)
        raise Denied(_missing(request))
    instruction, ledger, order = request.instruction.document, request.ledger, request.order.document
    enforced = compile_permit(request.permit, request.acceptance)
    size_bytes = _reserve_bytes(enforced, instruction.task)
    reasons = request.policy.check(instruction.task, order.image, enforced.terms.resources)  # (1)
    reasons += _check_epoch(request.facts, instruction)  # (1)
    reasons += _check_live(request, request.permit.document, request.acceptance.document)  # (3)
    reasons += check_order(request.order, enforced, request.now)  # (4)
    reasons += _check_instruction(instruction, enforced, order, request.facts.site, request.now)  # (5)
    reasons += check_config(enforced.terms.config, instruction.config)  # (6)
    reasons += _check_fixed(order.config, instruction.config)
    reasons += _check_attempt(instruction, ledger)  # (7), (9)
    if instruction.task is Kind.ANALYSE:
        reasons += _check_analysis(request.model, instruction, enforced, order, ledger)  # (5), (8), (9)
    else:
        reasons += check_model(request.model, instruction.model_sha256, enforced.terms.tensors)  # (8)
    if ledger.release is not None:  # (9)
        if reasons:
            raise Denied(reasons)
        return Redeliver(enforced, instruction, ledger.release.id, size_bytes)
    dataset, missing = _dataset(enforced, instruction.task, request.facts.datasets, ledger.dataset_version)  # (10)
    reasons += missing
    if dataset is not None:
        reasons += check_protected(dataset.spending, enforced)  # (10)
    if dataset is not None and not ledger.task_charged:
        total = request.policy.epsilon_total
        reasons += check_left(ledger, dataset.spending, enforced, instruction, size_bytes, total)  # (11)
    reasons += request.policy.check_hours(instruction.expires, request.now)  # (12)
    if reasons or dataset is None:
        raise Denied(reasons)
    charge = None if ledger.task_charged else _charge(enforced, instruction, size_bytes, dataset.dataset)
    return Admitted(
        permit=enforced, instruction=instruction, order=order, dataset_version=dataset.version,
        split=_split(enforced, instruction.task), byte_limit=size_bytes, charge=charge,
        expires=min(enforced.terms.expires, order.expires),
    )  # fmt: skip


def container_spec(
    admitted: Admitted, job: str, data_dir: str, in_dir: str, now: datetime, gpu_devices: tuple[str, ...] = ()
) -> ContainerSpec:
    """The container of an admitted task: nothing in it is anybody's choice but the permit's and the order's, and the
    queue's, which of the GPUs granted (`node.core.tasks.schedule`)."""
    return ContainerSpec(
        job=job, purpose="job", image=admitted.order.image, data_dir=data_dir, in_dir=in_dir,
        resources=admitted.permit.terms.resources, issued=now, expires=admitted.expires, gpu_devices=gpu_devices,
    )  # fmt: skip


def check_model(model: bytes, sha256: str, specs: Sequence[TensorSpec]) -> list[Reason]:
    """Why a model may not enter a container: not the one named, or not of the permit's schema; else empty."""
    if hashlib.sha256(model).hexdigest() != sha256:
        return [Reason(Code.MODEL_MISMATCH, "not the model the instruction names")]
    try:
        tensors.parse(model, specs)
    except Denied as denied:
        # the codes of tensors speak of an output to the hub; about an input it hears that the model is not permitted
        return [Reason(Code.MODEL_NOT_PERMITTED, str(reason)) for reason in denied.reasons]
    return []


def check_order(signed: Signed[RunOrder], permit: EnforcedPermit, now: datetime) -> list[Reason]:
    """Why a run order does not hold under a permit at `now`; empty when it does. Also asked when it arrives."""
    order = signed.document
    reasons = []
    if signed.key_id not in permit.persons:
        reasons.append(Reason(Code.PERSON_NOT_NAMED, "the permit does not name the key of this run order"))
    reasons += outside(order, permit.terms)
    if permit.site not in order.sites:
        reasons.append(Reason(Code.SITE_NOT_NAMED, "the run order does not name this site"))
    if now >= order.expires:
        reasons.append(Reason(Code.RUN_ORDER_EXPIRED, f"expired {canonical.print_time(order.expires)}"))
    return reasons


# --- the single checks --------------------------------------------------------------------------------------


def _missing(request: AdmissionRequest) -> list[Reason]:
    reasons = [Reason(Code.HOSPITAL_PAUSED)] if request.policy.paused else []
    reasons += _check_epoch(request.facts, request.instruction.document)  # (1)
    if request.permit is None:
        reasons.append(Reason(Code.PERMIT_MISSING, "no permit of this id and version"))
    if request.acceptance is None:
        reasons.append(Reason(Code.PERMIT_NOT_ACCEPTED, "the hospital has not accepted this permit"))
    if request.order is None:
        reasons.append(Reason(Code.RUN_ORDER_MISSING, "no run order for this run"))
    return reasons


def _check_live(request: AdmissionRequest, permit: DataPermit, acceptance: Acceptance) -> tuple[Reason, ...]:
    return check_live(
        permit,
        acceptance,
        request.revocations,
        siblings=request.facts.siblings,
        highest_revocation=request.facts.highest_revocation,
        max_revocation_age=request.policy.max_revocation_age,
        newest_audit=request.facts.newest_audit,
        now=request.now,
    )


def _check_epoch(facts: NodeFacts, instruction: Instruction) -> list[Reason]:
    if facts.set_back:
        return [Reason(Code.LOG_SET_BACK, "what this node has served before, it no longer knows")]
    if facts.opened is not None and (facts.ordered_before or instruction.issued < facts.opened):
        return [Reason(Code.EPOCH_OVER, "from before this node's log was set back")]
    return []


def _check_instruction(
    instruction: Instruction, permit: EnforcedPermit, order: RunOrder, site: str, now: datetime
) -> list[Reason]:
    reasons = []
    if instruction.site != site or permit.site != site:
        reasons.append(Reason(Code.INSTRUCTION_MISADDRESSED, "for another site"))
    if instruction.run != order.run:
        reasons.append(Reason(Code.INSTRUCTION_MISADDRESSED, "for another run than the order's"))
    if (instruction.permit, instruction.permit_version) != (permit.terms.permit, permit.terms.permit_version):
        reasons.append(Reason(Code.INSTRUCTION_MISADDRESSED, "for another permit or version"))
    if now >= instruction.expires:
        reasons.append(Reason(Code.INSTRUCTION_EXPIRED, f"expired {canonical.print_time(instruction.expires)}"))
    if instruction.issued > now + CLOCK_TOLERANCE:
        reasons.append(Reason(Code.CLOCK_WENT_BACK, "now is before the instruction was issued"))
    if instruction.task not in permit.terms.kinds:
        reasons.append(Reason(Code.KIND_NOT_PERMITTED, f"the permit does not allow {instruction.task.value}"))
    if instruction.round > order.rounds:
        reasons.append(Reason(Code.ROUND_OUT_OF_RANGE, f"the run order has {order.rounds} rounds"))
    if instruction.round == 0 and instruction.task is not Kind.EVALUATE:
        reasons.append(Reason(Code.ROUND_OUT_OF_RANGE, "round 0 is only evaluated"))
    if (instruction.task is Kind.ANALYSE) is not (order.strategy == LOCAL):
        reasons.append(Reason(Code.RUN_ORDER_MISMATCH, "a local order is for an analysis, any other for rounds"))
    return reasons


def _check_analysis(
    model: bytes, instruction: Instruction, permit: EnforcedPermit, order: RunOrder, ledger: Ledger
) -> list[Reason]:
    reasons = []
    if permit.terms.analysis is None:
        reasons.append(Reason(Code.KIND_NOT_PERMITTED, "the permit has no rules for analyses"))
    if model or instruction.model_sha256 != hashlib.sha256(b"").hexdigest():
        reasons.append(Reason(Code.MODEL_NOT_PERMITTED, "an analysis has no model"))
    if order.rounds != 1:
        reasons.append(Reason(Code.RUN_ORDER_MISMATCH, "an analysis has one round"))
    if ledger.held:
        reasons.append(Reason(Code.ROUND_ALREADY_SERVED, "its files are in the airlock"))
    return reasons


def _split(permit: EnforcedPermit, task: Kind) -> Split:
    if task is Kind.ANALYSE:
        return "test" if permit.terms.analysis is None else permit.terms.analysis.split
    return _SPLIT[task]


def _reserve_bytes(permit: EnforcedPermit, task: Kind) -> int:
    if task is Kind.ANALYSE:
        return 0 if permit.terms.analysis is None else permit.terms.analysis.size_bytes
    return reserve_bytes(permit.terms.tensors, task)


def _check_fixed(ordered: Mapping[str, Any], sent: Mapping[str, Any]) -> list[Reason]:
    """What the researcher signed stands; a strategy may add permitted keys (a round's own learning rate)."""
    changed = [name for name, value in ordered.items() if name not in sent or not _same(value, sent[name])]
    return [Reason(Code.RUN_ORDER_MISMATCH, "a configuration value that the run order fixes")] if changed else []


def _check_attempt(instruction: Instruction, ledger: Ledger) -> list[Reason]:
    if instruction.attempt <= ledger.last_attempt:
        return [Reason(Code.INSTRUCTION_REPLAYED, f"attempt {ledger.last_attempt} has been served")]
    if ledger.release is not None and ledger.release.model_sha256 != instruction.model_sha256:
        return [Reason(Code.ROUND_ALREADY_SERVED, "from another model")]
    return check_attempts(ledger)


def _dataset(
    permit: EnforcedPermit, task: Kind, datasets: Sequence[DatasetFacts], used: str | None
) -> tuple[DatasetFacts | None, list[Reason]]:
    """The newest dataset version that may be used, or why there is none."""
    covered = [item for item in datasets if item.version in permit.versions and item.project == permit.terms.project]
    if not covered:
        return None, [Reason(Code.DATASET_NOT_PERMITTED, "the node holds no version that the permit covers")]
    usable = [item for item in covered if not item.withdrawn and used in (None, item.version)]
    if not usable:
        return None, [Reason(Code.DATASET_MISSING, "withdrawn, or another than the version this run began with")]
    newest = max(usable, key=lambda item: (item.published, item.version))
    studies = newest.train_studies if _split(permit, task) == "train" else newest.test_studies
    if studies < permit.terms.minimum_studies:
        return None, [Reason(Code.TOO_FEW_STUDIES, f"under {permit.terms.minimum_studies} for {task.value}")]
    return newest, []


def _charge(permit: EnforcedPermit, instruction: Instruction, size_bytes: int, dataset: str) -> Charge:
    noise = noise_of(permit, instruction.task)
    return Charge(instruction.run, instruction.round, instruction.task, size_bytes, dataset, noise)


def _same(one: Any, other: Any) -> bool:
    # in canonical JSON 1 and 1.0 are one number; true is not 1
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
