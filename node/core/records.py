"""What the store hands out: rows as frozen values. Times are UTC; a `text` is a signed document as it came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from mediator.airlock.review import FileState
from mediator.audit import Action, Epoch, LogHead, Verdict
from mediator.errors import Code, HubCode
from mediator.imports import ImportState
from mediator.jobs import JobState
from mediator.revocations import Revocations
from mediator.types import Kind, ReleasedObject


@dataclass(frozen=True)
class AuditEvent:
    """What a change of the store writes down. `object` is an id of ours, `permit` is `id@version` or empty.

    `mediator.audit.AuditRecord` says what each may look like; the store adds sequence and time.
    """

    actor: str
    action: Action
    object: str
    verdict: Verdict
    permit: str = ""
    code: Code | None = None


@dataclass(frozen=True)
class DocumentRow:
    """A signed document the node holds: the text to open again, and what it was when it was taken in."""

    text: str = field(repr=False)
    sha256: str
    key_id: str
    received: datetime


@dataclass(frozen=True)
class PermitRow(DocumentRow):
    permit: str
    permit_version: int
    project: str
    not_before: datetime
    expires: datetime


@dataclass(frozen=True)
class AcceptanceRow(DocumentRow):
    permit: str
    permit_version: int
    expires: datetime


@dataclass(frozen=True)
class RunOrderRow(DocumentRow):
    """A run order, with the run's state here: `ordered`, then `running` from the first task that is charged."""

    run: str
    permit: str
    permit_version: int
    rounds: int
    expires: datetime
    state: str


@dataclass(frozen=True)
class RevocationListRow(DocumentRow):
    """A list, and all that is revoked by it and by those before it."""

    number: int
    issued: datetime
    revoked: tuple[str, ...]

    @property
    def revocations(self) -> Revocations:
        return Revocations(self.number, self.issued, frozenset(self.revoked), self.sha256)


@dataclass(frozen=True)
class ImageRow:
    """An approval. `approved_by` is unknown for those from before people were named, `withdrawn_by` for those that
    were withdrawn before it was kept."""

    image: str
    approved: datetime
    note: str
    approved_by: str | None
    withdrawn: datetime | None
    withdrawn_by: str | None


@dataclass(frozen=True)
class ImageFactsRow:
    """An image as it was added; `text` is a `mediator.images.ImageFacts` as canonical JSON."""

    image: str
    manifest: str | None
    lineage: str
    text: str = field(repr=False)
    added: datetime


@dataclass(frozen=True)
class DatasetVersionRow:
    """A published version. `folder` is below `datasets/`; `withdrawn` is when it was taken out of use."""

    dataset_version: str
    dataset: str
    project: str
    created: datetime
    supersedes: str | None
    folder: str
    manifest_sha256: str
    counts: Mapping[str, int]
    excluded: Mapping[str, int]
    withdrawn: datetime | None


@dataclass(frozen=True)
class NewImport:
    """An order to take data in. `order_text` is canonical JSON and holds the source folder; `actor` gave it."""

    name: str
    project: str
    dataset: str
    actor: str
    order_text: str = field(repr=False)


@dataclass(frozen=True)
class ImportRow(NewImport):
    """An import as it stands. Studies are counted as intake told them; `not_now`: nothing is wrong with the order."""

    state: ImportState
    studies: int
    studies_done: int
    studies_waiting: int
    destroyed: int
    tried_with: str
    dataset_version: str | None
    error: str
    hint: str
    not_now: bool
    created: datetime
    updated: datetime


@dataclass(frozen=True)
class InstructionRow:
    """An instruction and its answer. `state` is open, released or refused; `delivered` is when the hub had it.

    `text` and `reply_context` are empty for one that gate 1 refused: it was answered at once, and the hashes stay.
    """

    instruction: str
    run: str
    permit: str
    permit_version: int
    round: int
    task: Kind
    attempt: int
    model_sha256: str
    text: str = field(repr=False)
    reply_context: bytes = field(repr=False)
    text_sha256: str
    context_sha256: str
    received: datetime
    expires: datetime
    state: Literal["open", "released", "refused"]
    hub_code: HubCode | None
    delivered: datetime | None


@dataclass(frozen=True)
class JobRow:
    """One task of one run. `sandbox` is the container it was given to, `code` why it ended otherwise than done.

    `dataset_version` is known once gate 1 has admitted the task. `used_s` are slot-seconds in containers so far,
    `preempted` how often it made room for another.
    """

    job: str
    instruction: str
    run: str
    round: int
    task: Kind
    permit: str
    permit_version: int
    dataset_version: str | None
    state: JobState
    sandbox: str | None
    code: Code | None
    created: datetime
    updated: datetime
    used_s: float = 0.0
    preempted: int = 0


@dataclass(frozen=True)
class RefusalDayRow:
    """Refusals of one source on one day: written down one by one, and counted only."""

    source: str
    day: str
    kept: int
    more: int


@dataclass(frozen=True)
class UseRow:
    """What one job of a project used of the site's slots, and when it last changed."""

    project: str
    used_s: float
    updated: datetime


@dataclass(frozen=True)
class NewRelease:
    """What gate 2 let through, about to be kept. `folder` is below `releases/`; `envelope` the signed envelope."""

    instruction: str
    permit: str
    permit_version: int
    run: str
    round: int
    task: Kind
    attempt: int
    model_sha256: str
    root: str
    objects: tuple[ReleasedObject, ...]
    folder: str
    envelope: str = field(repr=False)

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.objects)


@dataclass(frozen=True)
class ReleaseRow(NewRelease):
    created: datetime
    delivered: datetime | None


@dataclass(frozen=True)
class NewCharge:
    """What one task costs, at most: bytes that may leave, epsilon that may be spent.

    `epsilon` is what it adds to its permit's sum for `dataset` (a name); `noise_multiplier` is None where what leaves
    has no noise.
    """

    permit: str
    permit_version: int
    run: str
    round: int
    task: Kind
    size_bytes: int
    epsilon: float
    dataset: str | None = None
    noise_multiplier: float | None = None


@dataclass(frozen=True)
class LedgerTotals:
    """Sums over charged tasks. A round counts once, however many tasks it has."""

    rounds: int
    size_bytes: int
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class ChargeRow(NewCharge):
    time: datetime


@dataclass(frozen=True)
class Spender:
    """A permit, of any version, that tasks on a dataset were charged under: how many release with noise, and how many
    without. `dataset` is empty where it is not known any more."""

    dataset: str
    permit: str
    noised: int
    without_noise: int


@dataclass(frozen=True)
class AirlockFile:
    """One file of an analysis. `needed` is how many persons must approve it; `record` its disclosure record as
    canonical JSON."""

    file: str
    job: str
    run: str
    permit: str
    permit_version: int
    name: str
    needed: int
    content_sha256: str
    record_sha256: str
    record: str = field(repr=False)


@dataclass(frozen=True)
class NewAirlockFile(AirlockFile):
    """About to be kept. `content` is what may leave, empty for a file that a rule refused."""

    content: bytes = field(repr=False)
    near: str = field(default="", repr=False)


@dataclass(frozen=True)
class NewShownCounts:
    """What one file or one round shows, about to be kept. `source` is the file or the instruction; `left` where it
    leaves at once. `counts` is the text of them (`node.core.counts`)."""

    source: str
    permit: str
    run: str
    name: str
    task: Kind
    dataset_version: str | None
    split: str | None
    left: bool
    counts: str | None = field(repr=False)


@dataclass(frozen=True)
class ShownCountsRow(NewShownCounts):
    """Kept. `approved`: people have let it."""

    approved: bool
    time: datetime


@dataclass(frozen=True)
class AirlockRow(AirlockFile):
    """In the airlock; its content is asked for by itself."""

    state: FileState
    code: Code | None
    created: datetime
    updated: datetime


@dataclass(frozen=True)
class CanaryRow:
    """One canary of one sandbox fingerprint: probes by name, and whether each did what it must."""

    fingerprint: str
    time: datetime
    passed: bool
    probes: Mapping[str, bool]


# the kinds of answers to the hub that may fail to go out
RELEASE, REFUSAL = "release", "refusal"
ANSWERS = (RELEASE, REFUSAL)


@dataclass(frozen=True)
class FailureRow:
    """A `message` or `document` (named by its SHA-256), a `release` or `refusal` (by its instruction) that failed while
    everything around it answered: how often, why the last time, and since when it is set aside and tried no more."""

    kind: str
    subject: str
    reason: str
    times: int
    first: datetime
    last: datetime
    set_aside: datetime | None


@dataclass(frozen=True)
class CheckpointRow:
    """A signed checkpoint over the first `size` records; `text` is its canonical JSON."""

    size: int
    text: str
    time: datetime


@dataclass(frozen=True)
class WitnessedRow:
    """The same checkpoint with the hub's signature; `text` is its canonical JSON."""

    size: int
    text: str
    time: datetime


@dataclass(frozen=True)
class EpochRow:
    """An epoch of the log after the first: its first record, and when that was written."""

    epoch: Epoch
    record: int
    opened: datetime


@dataclass(frozen=True)
class SetBackRow:
    """What was seen of this site's log and is not in it."""

    head: LogHead
    noticed: datetime
