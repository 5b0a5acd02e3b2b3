"""The documents and values that gates, workers and the hub speak in.

Every document is frozen, carries its kind and version, and has one canonical form (`mediator.canonical`).
Sizes are bytes, durations seconds, times UTC. A *digest* is `sha256:` and 64 hexadecimal digits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Literal

from mediator import grammar
from mediator.analysis import AnalysisRules
from mediator.grammar import check_digest, check_hex256, check_identifier, check_listed, check_number, check_version

# Marks a field that joined a document after the first of its version were signed: where it is absent it has its
# default, and the default is never printed, so that every document still has one form (`mediator.canonical`).
ADDED: Mapping[str, bool] = {"added": True}


# Two machines with NTP differ by milliseconds, without it by a minute or so.
CLOCK_TOLERANCE = timedelta(seconds=120)


class Kind(StrEnum):
    """What a task asks of a container."""

    TRAIN = "train"
    EVALUATE = "evaluate"
    ANALYSE = "analyse"  # no model and no hub: tables, into the airlock


_INSTRUCTION = re.compile(grammar.instruction_id(Kind))


class Dtype(StrEnum):
    """The tensor types that may cross, as safetensors spells them."""

    F32 = "F32"
    F64 = "F64"
    I32 = "I32"
    I64 = "I64"

    @property
    def size_bytes(self) -> int:
        return 8 if self.value.endswith("64") else 4


# --- what a permit is made of -------------------------------------------------------------------------------


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of the model: its name, its shape (may be empty for a scalar), its type."""

    name: str
    shape: tuple[int, ...]
    dtype: Dtype

    def __post_init__(self) -> None:
        grammar.check_name(self.name, "tensor name")
        if self.name == "__metadata__":
            raise ValueError("__metadata__ is safetensors' own name for free text, and no tensor")
        if len(self.shape) > 8 or any(not 0 < side <= 1 << 31 for side in self.shape):
            raise ValueError("a tensor has at most 8 dimensions, each at least 1")

    @property
    def count(self) -> int:
        """Number of elements; Python's integers do not overflow."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        return self.count * self.dtype.size_bytes


@dataclass(frozen=True)
class MetricSpec:
    """One metric that may leave. A *count* below the permit's `count_threshold` refuses the release."""

    name: str
    kind: Literal["value", "count"]
    minimum: float
    maximum: float
    digits: int

    def __post_init__(self) -> None:
        grammar.check_name(self.name, "metric name")
        if not (math.isfinite(self.minimum) and math.isfinite(self.maximum)):
            raise ValueError("a metric's range is of finite numbers")
        if not self.minimum <= self.maximum or not 0 <= self.digits <= 6:
            raise ValueError("a metric needs minimum <= maximum and 0 to 6 digits")
        if self.kind == "count" and self.digits:
            raise ValueError("a count is a whole number: 0 digits")

    @property
    def fixed(self) -> float | int | None:
        """The one value that may leave, where the permit leaves no other; None where the job has a choice."""
        if self.minimum != self.maximum or round(self.minimum, self.digits) != self.minimum:
            return None
        if abs(self.minimum) > 1 << 53:  # beyond it not every whole number has a print of its own
            return None
        return int(self.minimum) if self.kind == "count" else float(self.minimum) + 0.0


@dataclass(frozen=True)
class ConfigField:
    """One configuration value the hub may send: a number in a range, a bool, or a string out of a list."""

    name: str
    type: Literal["int", "float", "bool", "str"]
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]

    def __post_init__(self) -> None:
        grammar.check_name(self.name, "configuration key")
        grammar.check_texts(self.choices, "a choice")
        if not all(math.isfinite(bound) for bound in (self.minimum, self.maximum) if bound is not None):
            raise ValueError("a range is of finite numbers")
        if (self.type == "str") != bool(self.choices):
            raise ValueError("a string in a configuration needs its list of choices, and nothing else has one")
        if self.type in ("int", "float"):
            if self.minimum is None or self.maximum is None or not self.minimum <= self.maximum:
                raise ValueError("a number in a configuration needs its range")
        elif self.minimum is not None or self.maximum is not None:
            raise ValueError("only a number in a configuration has a range")


@dataclass(frozen=True)
class Person:
    """A person named in the permit (EHDS Art. 68), and the public key they sign with (hex)."""

    subject: str
    organisation: str
    public_key: str

    def __post_init__(self) -> None:
        grammar.check_text(self.subject, "a person's subject")
        grammar.check_text(self.organisation, "a person's organisation")
        check_hex256(self.public_key, "public key")


@dataclass(frozen=True)
class Resources:
    """The most one container may use. `memory_bytes` counts no swap: there is none.

    `gpu_memory_bytes` is how much memory each of the `gpus` has at least.
    """

    cpus: float
    memory_bytes: int
    pids: int
    wall_time_s: int
    tmp_bytes: int
    out_bytes: int
    out_files: int
    gpus: int
    gpu_memory_bytes: int = field(default=0, metadata=ADDED)

    def __post_init__(self) -> None:
        grammar.check_real(self.cpus, "cpus", *grammar.CPUS)
        for what in ("memory_bytes", "tmp_bytes", "out_bytes", "out_files"):
            check_number(getattr(self, what), what, 1)
        check_number(self.pids, "pids", 1, grammar.MAX_PIDS)
        check_number(self.wall_time_s, "wall_time_s", 1, grammar.MAX_SECONDS)
        check_number(self.gpus, "gpus", 0, grammar.MAX_GPUS)
        check_number(self.gpu_memory_bytes, "gpu_memory_bytes")

    def within(self, other: Resources) -> bool:
        """Whether every limit is at most `other`'s."""
        return all(getattr(self, name) <= getattr(other, name) for name in self.__dataclass_fields__)


@dataclass(frozen=True)
class PrivacyBudget:
    """Differential privacy per (site, dataset name): gate 2 adds Gaussian noise, the ledger adds up (dp-accounting).

    The noise's standard deviation is `noise_multiplier` × `clip_norm` on every element of the update.
    """

    epsilon: float
    delta: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        grammar.check_real(self.epsilon, "epsilon", *grammar.EPSILON)
        grammar.check_real(self.delta, "delta", *grammar.DELTA)
        grammar.check_real(self.noise_multiplier, "noise_multiplier", *grammar.NOISE_MULTIPLIER)
        if self.delta >= 1:
            raise ValueError("a delta of 1 promises nothing")


@dataclass(frozen=True)
class SiteDatasets:
    """The dataset versions of one site that a permit covers."""

    site: str
    versions: tuple[str, ...]

    def __post_init__(self) -> None:
        check_identifier(self.site, "site")
        check_listed(self.versions, "dataset versions of a site")
        for version in self.versions:
            check_digest(version, "dataset version")


# --- documents with a signature -----------------------------------------------------------------------------


@dataclass(frozen=True)
class DataPermit:
    """What the Access Committee grants (EHDS Art. 68), signed by its key."""

    KIND: ClassVar[str] = "cloister.data-permit"
    VERSION: ClassVar[int] = 1

    permit: str
    permit_version: int
    supersedes: int | None
    issuer: str
    purpose: str
    legal_basis: str
    project: str
    not_before: datetime
    expires: datetime
    persons: tuple[Person, ...]
    tools: tuple[str, ...]
    conditions: tuple[str, ...]
    kinds: tuple[Kind, ...]
    images: tuple[str, ...]
    datasets: tuple[SiteDatasets, ...]
    columns: tuple[str, ...]
    tensors: tuple[TensorSpec, ...]
    config: tuple[ConfigField, ...]
    metrics: Mapping[str, tuple[MetricSpec, ...]]
    clip_norm: float
    count_threshold: int
    privacy: PrivacyBudget | None
    maximum_rounds: int
    byte_budget: int
    minimum_studies: int
    resources: Resources
    # a permit without analyses is written as it was before there were any
    analysis: AnalysisRules | None = field(default=None, metadata=ADDED)

    def __post_init__(self) -> None:
        check_identifier(self.permit, "permit")
        check_identifier(self.project, "project")
        self._check_texts()
        for image in self.images:
            check_digest(image, "image")
        grammar.check_unique((tensor.name for tensor in self.tensors), "a tensor")
        grammar.check_unique((entry.site for entry in self.datasets), "a site")
        grammar.check_unique((entry.name for entry in self.config), "a configuration key")
        grammar.check_unique((person.public_key for person in self.persons), "a person's key")
        if unknown := set(self.metrics) - {kind.value for kind in Kind}:
            raise ValueError(f"metrics for an unknown kind of task: {sorted(unknown)[0][:20]}")
        for specs in self.metrics.values():
            grammar.check_unique((metric.name for metric in specs), "a metric")
        self._check_numbers()

    def _check_texts(self) -> None:
        grammar.check_text(self.issuer, "issuer")
        grammar.check_text(self.purpose, "purpose", grammar.MAX_TEXT)
        grammar.check_text(self.legal_basis, "legal_basis", grammar.MAX_TEXT)
        for what in ("persons", "kinds", "images", "datasets", "config"):
            check_listed(getattr(self, what), what)
        for what in ("tools", "conditions", "columns"):
            grammar.check_texts(getattr(self, what), what)
        for kind, specs in self.metrics.items():
            check_listed(specs, f"metrics of {kind[:20]}")

    def _check_numbers(self) -> None:
        if not self.not_before < self.expires:
            raise ValueError("a permit ends after it begins")
        check_version(self.permit_version, "permit_version")
        if not 0 <= (self.supersedes or 0) < self.permit_version:
            raise ValueError("a permit supersedes an earlier version of itself")
        if not 0 < self.clip_norm < 1e6:
            raise ValueError("clip_norm is positive, and under a million")
        check_number(self.count_threshold, "count_threshold", 1)
        check_number(self.minimum_studies, "minimum_studies", 1)
        check_number(self.maximum_rounds, "maximum_rounds")
        check_number(self.byte_budget, "byte_budget")

    def versions_of(self, site: str) -> tuple[str, ...]:
        """The dataset versions of `site` this permit covers; none for a site it does not name."""
        return tuple(version for entry in self.datasets if entry.site == site for version in entry.versions)


@dataclass(frozen=True)
class Acceptance:
    """One hospital's yes to exactly one version of one permit, by its steward's key; it may only narrow.

    `unprotected`: the steward knows that the permit lets exact values of a dataset leave that another permit protects
    with a privacy budget.
    """

    KIND: ClassVar[str] = "cloister.acceptance"
    VERSION: ClassVar[int] = 1

    site: str
    permit: str
    permit_version: int
    permit_sha256: str
    expires: datetime
    maximum_rounds: int | None
    byte_budget: int | None
    versions: tuple[str, ...] | None
    unprotected: bool = field(default=False, metadata=ADDED)

    def __post_init__(self) -> None:
        check_identifier(self.site, "site")
        check_identifier(self.permit, "permit")
        check_version(self.permit_version, "permit_version")
        check_hex256(self.permit_sha256, "permit_sha256")
        check_listed(self.versions or (), "dataset versions")
        for version in self.versions or ():
            check_digest(version, "dataset version")
        check_number(self.maximum_rounds or 0, "maximum_rounds")
        check_number(self.byte_budget or 0, "byte_budget")


@dataclass(frozen=True)
class RunOrder:
    """What a researcher asks for, signed by the key the permit names for them."""

    KIND: ClassVar[str] = "cloister.run-order"
    VERSION: ClassVar[int] = 1

    run: str
    permit: str
    permit_version: int
    image: str
    sites: tuple[str, ...]
    schema_sha256: str
    config: Mapping[str, Any]
    strategy: str
    rounds: int
    nonce: str
    expires: datetime

    def __post_init__(self) -> None:
        check_identifier(self.run, "run")
        check_identifier(self.permit, "permit")
        check_version(self.permit_version, "permit_version")
        check_digest(self.image, "image")
        check_hex256(self.schema_sha256, "schema_sha256")
        grammar.check_settings(self.config, "config")
        grammar.check_name(self.strategy, "strategy")
        grammar.check_name(self.nonce, "nonce")
        check_listed(self.sites, "sites")
        for site in self.sites:
            check_identifier(site, "site")
        check_number(self.rounds, "rounds", 1)


@dataclass(frozen=True)
class RevocationList:
    """The committee's list of permits that no longer hold. Its number only grows; an old one fails closed.

    It adds to those before it: a permit that it does not name is not thereby restored (`mediator.revocations`).
    """

    KIND: ClassVar[str] = "cloister.revocation-list"
    VERSION: ClassVar[int] = 1

    number: int
    issued: datetime
    permits: tuple[str, ...]

    def __post_init__(self) -> None:
        check_version(self.number, "number")
        for permit in self.permits:
            check_identifier(permit, "permit")


@dataclass(frozen=True)
class RevocationListV2(RevocationList):
    """A list that names the one before it by hash, and every permit that was revoked once and holds again."""

    VERSION: ClassVar[int] = 2

    previous_sha256: str | None
    restored: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.previous_sha256 is None) is not (self.number == 1):
            raise ValueError("a revocation list names the one before it; the first has none")
        if self.previous_sha256 is not None:
            check_hex256(self.previous_sha256, "previous_sha256")
        for permit in self.restored:
            check_identifier(permit, "permit")
        if set(self.restored) & set(self.permits):
            raise ValueError("a permit is revoked or restored, not both")


@dataclass(frozen=True)
class Instruction:
    """What the hub asks of one site for one round, signed by the hub's instruction key.

    `attempt` grows with each start of the hub, so that a run broken off is continued and never repeated: the
    same (run, round, task) with the same model and a higher attempt asks for the release already made.
    """

    KIND: ClassVar[str] = "cloister.instruction"
    VERSION: ClassVar[int] = 1

    run: str
    permit: str
    permit_version: int
    site: str
    round: int
    task: Kind
    attempt: int
    config: Mapping[str, Any]
    model_sha256: str
    issued: datetime
    expires: datetime

    def __post_init__(self) -> None:
        check_identifier(self.run, "run")
        check_identifier(self.permit, "permit")
        check_version(self.permit_version, "permit_version")
        check_identifier(self.site, "site")
        check_number(self.round, "round")
        check_version(self.attempt, "attempt")
        grammar.check_settings(self.config, "config")
        check_hex256(self.model_sha256, "model_sha256")
        if not self.issued < self.expires:
            raise ValueError("an instruction expires after it was issued")

    @property
    def id(self) -> str:
        """`run/round/task/attempt`: what the replay table and the release envelope name."""
        return f"{self.run}/{self.round}/{self.task.value}/{self.attempt}"


@dataclass(frozen=True)
class ReleasedObject:
    """One Flower object that may be pushed: the SHA-256 of its exact bytes, and how many there are."""

    id: str
    size_bytes: int

    def __post_init__(self) -> None:
        check_hex256(self.id, "object id")
        check_number(self.size_bytes, "size_bytes")


@dataclass(frozen=True)
class ReleaseEnvelope:
    """What may leave, signed by core with a key the link cannot read (`root`: the RecordDict's object id)."""

    KIND: ClassVar[str] = "cloister.release-envelope"
    VERSION: ClassVar[int] = 1

    site: str
    instruction: str
    permit: str
    permit_version: int
    run: str
    round: int
    task: Kind
    root: str
    objects: tuple[ReleasedObject, ...]
    expires: datetime

    def __post_init__(self) -> None:
        for what in ("site", "permit", "run"):
            check_identifier(getattr(self, what), what)
        check_version(self.permit_version, "permit_version")
        check_number(self.round, "round")
        if not _INSTRUCTION.fullmatch(self.instruction):
            raise ValueError("instruction is not run/round/task/attempt")
        check_hex256(self.root, "root")
        grammar.check_unique((entry.id for entry in self.objects), "an object")
        if self.root not in {entry.id for entry in self.objects}:
            raise ValueError("the root is one of the objects")

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.objects)


@dataclass(frozen=True)
class ContainerSpec:
    """Gate 1's verdict on a task, as a value: all there is to a container. The broker checks it again.

    `data_dir` and `in_dir` are absolute host folders under the broker's two configured roots; `/out` is a
    capped volume that the broker makes. `gpu_devices` names as many GPUs as `resources` grants. Everything else
    (no network, no capability, …) is constant and not in here.
    """

    KIND: ClassVar[str] = "cloister.container-spec"
    VERSION: ClassVar[int] = 1

    job: str
    purpose: Literal["job", "canary", "self_test"]
    image: str
    data_dir: str
    in_dir: str
    resources: Resources
    issued: datetime
    expires: datetime
    gpu_devices: tuple[str, ...] = field(default=(), metadata=ADDED)

    def __post_init__(self) -> None:
        check_identifier(self.job, "job")
        check_digest(self.image, "image")
        grammar.check_path(self.data_dir, "data_dir")
        grammar.check_path(self.in_dir, "in_dir")
        grammar.check_unique(self.gpu_devices, "a GPU")
        for gpu in self.gpu_devices:
            grammar.check_gpu(gpu)
        if len(self.gpu_devices) != self.resources.gpus:
            raise ValueError("a container names as many GPUs as it is granted")


# --- datasets -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DatasetFile:
    """One file of a dataset version: its path below the version's folder, size and SHA-256 (hex)."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Study:
    """One published study: pseudonymous id, patient pseudonym, split, and its files' folder."""

    study: str
    patient: str
    split: Literal["train", "test", "unlabelled"]
    folder: str
    instances: int


@dataclass(frozen=True)
class Manifest:
    """`manifest.json` of an immutable dataset version. The version's id is the Merkle root over its files."""

    KIND: ClassVar[str] = "cloister.manifest"
    VERSION: ClassVar[int] = 1

    dataset: str
    project: str
    site: str
    dataset_version: str
    created: datetime
    supersedes: str | None
    profile: str
    profile_fingerprint: str
    engine_version: str
    counts: Mapping[str, int]
    excluded: Mapping[str, int]
    columns: Mapping[str, str]
    studies: tuple[Study, ...]
    files: tuple[DatasetFile, ...]


# --- what a container leaves behind -------------------------------------------------------------------------


@dataclass(frozen=True)
class OutputFile:
    """One regular file found in `/out/<n>/`: its name relative to that folder, and its bytes."""

    name: str
    content: bytes = field(repr=False)
