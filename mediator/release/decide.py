"""Gate 2's one question, and the signed envelope's content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mediator import tensors
from mediator.disclosure import CountsBefore, DisclosureFinding, EarlierCounts, NearCount, Outcome, ShownCount
from mediator.errors import Code, Denied, IntegrityBroken, Reason
from mediator.permit import EnforcedPermit
from mediator.release import metrics
from mediator.release.clip import clip, clip_with_noise
from mediator.release.clip import noise_bytes as clip_noise_bytes
from mediator.tensors import Array
from mediator.types import Instruction, Kind, OutputFile, ReleasedObject, ReleaseEnvelope

MODEL_FILE = "model.safetensors"
METRICS_FILE = "metrics.json"
# What the job contract lets a task leave behind besides its result. It is read by nobody here and never leaves.
_CONTRACT_FILES = frozenset({"DONE", "progress.jsonl"})
_RESULT_FILES: Mapping[Kind, frozenset[str]] = {
    Kind.TRAIN: frozenset({MODEL_FILE, METRICS_FILE}),
    Kind.EVALUATE: frozenset({METRICS_FILE}),
}


@dataclass(frozen=True)
class ReleaseRequest:
    """One task's output, as copied once out of the frozen container.

    `given` is the safetensors file the task was given, `given_sha256` the hash in its instruction; `byte_limit` what
    the ledger was charged for this task; `noise` the random bytes for a permit with a privacy budget
    (`noise_bytes(permit)` of them, cryptographic), else empty. `earlier` are the counts that left under the permit
    before, or wait to; `dataset_version` is what the task saw.
    """

    permit: EnforcedPermit
    task: Kind
    files: Sequence[OutputFile]
    given: bytes = field(repr=False)
    given_sha256: str
    byte_limit: int
    noise: bytes = field(default=b"", repr=False)
    dataset_version: str = ""
    earlier: Sequence[EarlierCounts] = field(default=(), repr=False)


@dataclass(frozen=True)
class Released:
    """What may leave: values, and our own encodings of exactly those values (`model` is empty for evaluation)."""

    tensors: Mapping[str, Array] = field(repr=False)
    metrics: Mapping[str, float | int]
    model: bytes = field(repr=False)
    metrics_json: bytes
    counts: tuple[ShownCount, ...] = ()

    @property
    def size_bytes(self) -> int:
        return len(self.model) + len(self.metrics_json)


@dataclass(frozen=True)
class HeldCounts:
    """A task's counts that people have to judge before any of them may leave: our encoding, and what each is near."""

    counts: tuple[ShownCount, ...]
    pairs: tuple[NearCount, ...]
    findings: tuple[DisclosureFinding, ...]
    content: bytes


def release(request: ReleaseRequest) -> Released:
    """What of a task's output may leave. Raises `Denied` with every reason, or `IntegrityBroken`.

    1. The files are exactly those the contract names for this kind of task, each once.
    2. Metrics: `mediator.release.metrics.parse`; none is too near a count that left under the permit: `held_counts`.
       Under a privacy budget the job's are not read (`metrics.fixed`).
    3. Training: the model, `mediator.tensors.parse` against the permit's schema.
    4. Its update is clipped to the permit's norm, with noise under a privacy budget.
    5. Model and metrics are encoded anew from the parsed values: no byte of the container's files is passed on.
    6. What leaves fits what the ledger was charged.

    A permit with a privacy budget is refused by `compile_permit` when anything could leave exact.
    """
    permit, kind = request.permit, request.task
    contents = {file.name: file.content for file in request.files}
    reasons = _files(request.files, kind)  # (1)
    numbers: dict[str, float | int] = {}
    output: dict[str, Array] = {}
    if METRICS_FILE in contents:
        try:
            numbers = _metrics(permit, kind, contents[METRICS_FILE])  # (2)
            if _held(request, numbers) is not None:
                reasons.append(Reason(Code.DIFFERENCING, "a count too near one that left under the permit"))
        except Denied as denied:
            reasons += denied.reasons
    if MODEL_FILE in contents and kind is Kind.TRAIN:
        try:
            output = tensors.parse(contents[MODEL_FILE], permit.terms.tensors)  # (3)
        except Denied as denied:
            reasons += denied.reasons
    if reasons:
        raise Denied(reasons)
    model = b""
    if kind is Kind.TRAIN:
        output = _bounded(request, output)  # (4)
        model = tensors.encode(output)  # (5)
    counts = metrics.counted(numbers, permit.metrics_of(kind), kind)
    released = Released(output, numbers, model, metrics.encode(numbers), counts)
    if released.size_bytes > request.byte_limit:  # (6)
        raise Denied(Reason(Code.BYTES_EXHAUSTED, f"more than the {request.byte_limit} bytes charged"))
    return released


def held_counts(request: ReleaseRequest) -> HeldCounts | None:
    """The counts for whose sake `release` refuses an output with `differencing`; None where it has no such reason.

    Raises `Denied` for metrics that are none.
    """
    raw = next((file.content for file in request.files if file.name == METRICS_FILE), b"")
    return _held(request, _metrics(request.permit, request.task, raw))


def _held(request: ReleaseRequest, numbers: Mapping[str, float | int]) -> HeldCounts | None:
    """Each count against all before, and against those beside it. The same number for one name is nothing new; another
    number for it is a person's to judge, as a near one is: rounds may count differently, and no researcher can mend
    a round."""
    permit, task = request.permit, request.task
    counts = metrics.counted(numbers, permit.metrics_of(task), task)
    before, pairs = CountsBefore(request.earlier), list[NearCount]()
    contradictions = near = 0
    for count in counts:
        found = before.compare((count,), request.dataset_version, permit.terms.count_threshold)
        contradictions, near = contradictions + found.contradictions, near + found.near
        pairs += found.pairs
        before.add(EarlierCounts(METRICS_FILE, "", request.dataset_version, None, False, (count,)))
    if not pairs:
        return None
    names = {spec.name for spec in permit.metrics_of(task) if spec.kind == "count"}
    content = metrics.encode({name: number for name, number in numbers.items() if name in names})
    limit = f"{permit.terms.count_threshold} from every other count under the permit"
    findings = (
        DisclosureFinding("earlier", _judged(contradictions), len(counts), contradictions, "one number for one group"),
        DisclosureFinding("earlier", _judged(near), len(counts), near, limit),
    )
    return HeldCounts(counts, tuple(pairs), findings, content)


def _judged(minded: int) -> Outcome:
    return "review" if minded else "pass"


def envelope(
    permit: EnforcedPermit,
    instruction: Instruction,
    root: str,
    objects: Iterable[ReleasedObject],
    byte_limit: int,
) -> ReleaseEnvelope:
    """The envelope for an instruction's released objects, to be signed by core. Raises `Denied`.

    It expires with the instruction or the permit, whichever comes first. The objects are what the wire carries,
    a little more than gate 2's own encoding: they too must fit what the ledger was charged.
    """
    listed = tuple(objects)
    if sum(entry.size_bytes for entry in listed) > byte_limit:
        raise Denied(Reason(Code.BYTES_EXHAUSTED, f"more than the {byte_limit} bytes charged"))
    return ReleaseEnvelope(
        site=permit.site,
        instruction=instruction.id,
        permit=permit.terms.permit,
        permit_version=permit.terms.permit_version,
        run=instruction.run,
        round=instruction.round,
        task=instruction.task,
        root=root,
        objects=listed,
        expires=min(instruction.expires, permit.terms.expires),
    )


def noise_bytes(permit: EnforcedPermit) -> int:
    """How many random bytes `release` needs for a training task; 0 without a privacy budget."""
    return 0 if permit.terms.privacy is None else clip_noise_bytes(permit.terms.tensors)


def _files(files: Sequence[OutputFile], kind: Kind) -> list[Reason]:
    names = [file.name for file in files]
    wanted = _RESULT_FILES[kind]
    reasons = [Reason(Code.FILE_MISSING, name) for name in sorted(wanted.difference(names))]
    # counted, not named: the name is the container's
    if extra := sum(1 for name in names if name not in wanted | _CONTRACT_FILES):
        reasons.append(Reason(Code.FILE_NOT_PERMITTED, f"{extra} that the contract does not name"))
    if len(set(names)) != len(names):
        reasons.append(Reason(Code.FILE_NOT_PERMITTED, "a file stands twice"))
    return reasons


def _metrics(permit: EnforcedPermit, kind: Kind, raw: bytes) -> dict[str, float | int]:
    specs = permit.metrics_of(kind)
    if permit.terms.privacy is not None:
        return metrics.fixed(specs)
    return metrics.parse(raw, specs, permit.terms.count_threshold)


def _bounded(request: ReleaseRequest, output: Mapping[str, Array]) -> dict[str, Array]:
    permit = request.permit
    if hashlib.sha256(request.given).hexdigest() != request.given_sha256:
        raise IntegrityBroken("the model kept for this task is not the one it was given")
    given = tensors.parse(request.given, permit.terms.tensors)
    if permit.terms.privacy is None:
        return clip(output, given, permit.terms.clip_norm)
    return clip_with_noise(output, given, permit.terms.clip_norm, permit.terms.privacy.noise_multiplier, request.noise)
