"""A researcher's image, tried at home: both gates as a hospital asks them, one container after the other, made-up data.

Nothing here is a rehearsal of the gates: the draft permit is signed with keys that live as long as the trial, accepted,
ordered and instructed, and `admit` and `release` decide on those documents as they do in a hospital. What differs is
said: the permit's dates, persons, image and dataset are replaced by the trial's own, and epsilon is not accounted.

The sequence is a federation's: round 0 evaluates the model before any training; then each round trains and evaluates.
With one site the average is what was released, so it is the next round's model. A refused kind of task is not asked
again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from containers.warm.container import sandbox_key
from containers.warm.pool import Sandboxes, WarmTask
from mediator import tensors
from mediator.admission import AdmissionRequest, Admitted, DatasetFacts, NodeFacts, admit, container_spec
from mediator.errors import Denied, Ended, Reason
from mediator.ledger import Ledger, Spending
from mediator.permit import compile_permit, schema_sha256
from mediator.policy import Policy
from mediator.ports import Clock
from mediator.release.clip import update_norm
from mediator.release.decide import Released, ReleaseRequest, noise_bytes, release
from mediator.revocations import Revocations
from mediator.signatures import KeyRing, Signed, SigningKey, open_signed
from mediator.types import (
    Acceptance,
    DataPermit,
    Instruction,
    Kind,
    Manifest,
    OutputFile,
    Person,
    RunOrder,
    SiteDatasets,
)

SITE, RUN = "home", "trial"
_VALID_FOR = timedelta(days=1)
_MAX_REVOCATION_AGE = timedelta(hours=24)

MakeView = Callable[[str, tuple[str, ...], Path], None]
"""(split, columns, folder): fill `/data`."""


@dataclass(frozen=True)
class Trial:
    """What is tried: an image (by digest) under a draft permit, with this configuration, from this model
    (safetensors), on this dataset version, for this many training rounds, on these GPUs."""

    image: str
    draft: DataPermit
    config: Mapping[str, Any]
    model: bytes = field(repr=False)
    manifest: Manifest = field(repr=False)
    rounds: int = 2
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One task and what became of it. `norm` is the update's L2 norm as it came, `clipped` whether gate 2 shortened
    it; `size_bytes` and `metrics` are what would leave. `gate` says who refused: 1, 2, or 0 for the container."""

    round: int
    kind: Kind
    start: Literal["cold", "warm"]
    seconds: float
    verdict: Literal["released", "refused", "failed"]
    gate: Literal[0, 1, 2] = 0
    reasons: tuple[Reason, ...] = ()
    metrics: Mapping[str, float | int] = field(default_factory=dict)
    size_bytes: int = 0
    norm: float | None = None
    clipped: bool = False
    sandbox: str = ""


class TrialDocuments:
    """The trial's signed documents and the one dataset they are about."""

    def __init__(self, trial: Trial, clock: Clock, random_bytes: Callable[[int], bytes]) -> None:
        """Raises `Denied` for a permit that no hospital could enforce."""
        self._trial, self._clock = trial, clock
        now = clock().replace(microsecond=0)
        committee, steward, researcher, self._hub = (SigningKey(random_bytes(32)) for _ in range(4))
        permit = replace(
            trial.draft,
            issuer=committee.key_id,
            not_before=now - timedelta(minutes=1),
            expires=now + _VALID_FOR,
            persons=(Person("you", "at home", researcher.verify_key.text),),
            images=(trial.image,),
            datasets=(SiteDatasets(SITE, (trial.manifest.dataset_version,)),),
        )
        self.permit = _opened(permit, committee)
        acceptance = Acceptance(
            SITE, permit.permit, permit.permit_version, self.permit.sha256, permit.expires, None, None, None
        )
        self.acceptance = _opened(acceptance, steward)
        self.enforced = compile_permit(self.permit, self.acceptance)
        order = RunOrder(
            run=RUN,
            permit=permit.permit,
            permit_version=permit.permit_version,
            image=trial.image,
            sites=(SITE,),
            schema_sha256=schema_sha256(permit.tensors),
            config=trial.config,
            strategy="fedavg",
            rounds=trial.rounds,
            nonce="0",
            expires=permit.expires,
        )
        self.order = _opened(order, researcher)
        self.revocations = Revocations(1, now, frozenset(), "")
        splits = [study.split for study in trial.manifest.studies]
        self._facts = NodeFacts(
            site=SITE,
            newest_audit=None,
            highest_revocation=1,
            siblings=(),
            datasets=[
                DatasetFacts(
                    version=trial.manifest.dataset_version,
                    dataset=trial.manifest.dataset,
                    project=permit.project,
                    published=now,
                    train_studies=splits.count("train"),
                    test_studies=splits.count("test"),
                    withdrawn=False,
                    spending=Spending(0.0, 0.0, had_budget=False),  # a hospital accounts it
                )
            ],
        )

    def admit(self, round_: int, kind: Kind, model: bytes, ledger: Ledger) -> Admitted:
        """Gate 1's verdict on one task. Raises `Denied` with every reason."""
        now = self._clock()
        permit = self.permit.document
        instruction = Instruction(
            run=RUN,
            permit=permit.permit,
            permit_version=permit.permit_version,
            site=SITE,
            round=round_,
            task=kind,
            attempt=1,
            config=self._trial.config,
            model_sha256=hashlib.sha256(model).hexdigest(),
            issued=now,
            expires=now + _VALID_FOR,
        )
        verdict = admit(
            AdmissionRequest(
                instruction=_opened(instruction, self._hub),
                model=model,
                permit=self.permit,
                acceptance=self.acceptance,
                order=self.order,
                revocations=self.revocations,
                policy=Policy(
                    paused=False,
                    kinds=frozenset(Kind),
                    images=frozenset({self._trial.image}),
                    resources=permit.resources,
                    max_revocation_age=_MAX_REVOCATION_AGE,
                ),
                facts=self._facts,
                ledger=ledger,
                now=now,
            )
        )
        assert isinstance(verdict, Admitted)  # a ledger without a release has nothing to deliver again
        return verdict


def try_job(
    trial: Trial,
    *,
    sandboxes: Sandboxes,
    make_view: MakeView,
    clock: Clock,
    random_bytes: Callable[[int], bytes],
    begin: Callable[[int, Kind], None] = lambda *_: None,
) -> Iterator[Step]:
    """Try `trial` and tell each task as it ends; `begin(round, kind)` is called before each.

    Raises `Denied` before the first task for a permit that cannot be enforced, or when the sandbox does not hold, and
    `NotNow` when the engine goes away.
    """
    documents = TrialDocuments(trial, clock, random_bytes)
    work = _Work(trial, documents, sandboxes, make_view, clock, random_bytes)
    refused: set[Kind] = set()
    for round_, kind in schedule(trial.rounds, frozenset(documents.enforced.terms.kinds)):
        if kind in refused or (Kind.TRAIN in refused and round_ > 0):
            continue
        begin(round_, kind)
        step = work.step(round_, kind)
        if step.verdict != "released":
            refused.add(kind)
        yield step


def schedule(rounds: int, kinds: frozenset[Kind]) -> Sequence[tuple[int, Kind]]:
    """(round, kind of task) in a federation's order, of the kinds that the permit has."""
    tasks = [(0, Kind.EVALUATE)]
    for number in range(1, rounds + 1):
        tasks += [(number, Kind.TRAIN), (number, Kind.EVALUATE)]
    return [(number, kind) for number, kind in tasks if kind in kinds]


class _Work:
    """The state of a trial under way: the model, what the ledger was charged, which containers are warm."""

    def __init__(
        self,
        trial: Trial,
        documents: TrialDocuments,
        sandboxes: Sandboxes,
        make_view: MakeView,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._trial, self._documents, self._sandboxes = trial, documents, sandboxes
        self._make_view, self._clock, self._random_bytes = make_view, clock, random_bytes
        self._model = trial.model
        self._rounds: set[tuple[str, int]] = set()
        self._bytes = 0

    def step(self, round_: int, kind: Kind) -> Step:
        started, model = time.monotonic(), self._model
        state: dict[str, Any] = {"start": "cold", "sandbox": ""}

        def ended(**more: Any) -> Step:
            return Step(round_, kind, seconds=time.monotonic() - started, **state, **more)

        try:
            admitted = self._admit(round_, kind, model)
        except Denied as denied:
            return ended(verdict="refused", gate=1, reasons=_once(denied))
        try:
            files = self._serve(admitted, round_, kind, model, state)
        except Denied as denied:
            return ended(verdict="failed", reasons=_once(denied))
        except Ended as end:
            return ended(verdict="failed", reasons=(end.reason,))
        try:
            released = self._release(admitted, kind, model, files)
        except Denied as denied:
            self._sandboxes.stop(denied.reasons[0].code, lambda key: key.task is kind)
            return ended(verdict="refused", gate=2, reasons=_once(denied))
        norm = self._norm(kind, model, files)
        if kind is Kind.TRAIN:
            self._model = released.model
        clip_norm = admitted.permit.terms.clip_norm
        return ended(
            verdict="released", metrics=released.metrics, size_bytes=released.size_bytes, norm=norm,
            clipped=norm is not None and norm > clip_norm,
        )  # fmt: skip

    def _admit(self, round_: int, kind: Kind, model: bytes) -> Admitted:
        ledger = Ledger(
            rounds_charged=frozenset(self._rounds),
            bytes_charged=self._bytes,
            dataset_version=self._trial.manifest.dataset_version,
        )
        admitted = self._documents.admit(round_, kind, model, ledger)
        self._rounds.add((RUN, round_))
        self._bytes += admitted.byte_limit
        return admitted

    def _serve(
        self, admitted: Admitted, round_: int, kind: Kind, model: bytes, state: dict[str, Any]
    ) -> Sequence[OutputFile]:
        key = sandbox_key(admitted)
        state["start"] = "warm" if key in self._sandboxes.running() else "cold"
        return self._sandboxes.serve(
            key,
            WarmTask(kind, round_, self._trial.config, model, tensors=admitted.permit.tensor_names),
            make_view=lambda into: self._make_view(admitted.split, admitted.permit.terms.columns, into),
            make_spec=lambda name, data, inbox: container_spec(
                admitted, name, str(data), str(inbox), self._clock(), self._trial.gpus
            ),
            limit_s=float(admitted.permit.terms.resources.wall_time_s),
            guard=lambda name: state.update(sandbox=name),
            gpus=self._trial.gpus,
        )

    def _release(self, admitted: Admitted, kind: Kind, model: bytes, files: Sequence[OutputFile]) -> Released:
        permit = admitted.permit
        return release(
            ReleaseRequest(
                permit=permit,
                task=kind,
                files=files,
                given=model,
                given_sha256=admitted.instruction.model_sha256,
                byte_limit=admitted.byte_limit,
                noise=self._random_bytes(noise_bytes(permit)) if kind is Kind.TRAIN else b"",
            )
        )

    def _norm(self, kind: Kind, model: bytes, files: Sequence[OutputFile]) -> float | None:
        """The update's norm as the container left it; gate 2 has just accepted the file."""
        if kind is not Kind.TRAIN:
            return None
        specs = self._documents.enforced.terms.tensors
        output = next(file.content for file in files if file.name.endswith(".safetensors"))
        return update_norm(tensors.parse(output, specs), tensors.parse(model, specs))


def _once(denied: Denied) -> tuple[Reason, ...]:
    """Every reason once: order and instruction may both have the same to mend."""
    return tuple(dict.fromkeys(denied.reasons))


def _opened(document: Any, key: SigningKey) -> Signed[Any]:
    """A document signed and opened again, as it would come over the wire."""
    return open_signed(type(document), key.sign(document), KeyRing([key.verify_key]))
