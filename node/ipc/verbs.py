"""Everything the four sockets of a node can be asked, one list per socket; what is not on a list is refused.

`LINK`, `INTAKE` and `ADMIN` are served by core on `link.sock`, `intake.sock` and `admin.sock`; `BROKER` by the broker
on `broker.sock`. Messages name studies, versions and runs by their public ids and never a patient or a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from mediator.errors import Code, HubCode
from node.ipc.channel import Verb
from node.ipc.messages import Empty, Message

# --- several sockets ----------------------------------------------------------------------------------------


class SignedText(Message):
    """A signed document (compact JWS) as it came."""

    text: str


class Outcome(Message):
    """What became of a document: taken, already held, or refused with the first reason."""

    outcome: Literal["accepted", "known", "refused"]
    code: Code | None = None


# --- link.sock: the link asks, core answers -----------------------------------------------------------------


class Hello(Message):
    link_version: str


class Welcome(Message):
    site: str
    paused: bool


class InstructionStart(Message):
    """An instruction as signed by the hub, and what the link needs to build the reply later. The model follows as
    raw chunks of one safetensors file."""

    text: str
    reply_context: bytes


class InstructionAnswer(Message):
    accepted: bool
    hub_code: HubCode | None = None


class Outgoing(Message):
    """One reply to make: an envelope with the spool folder of its objects, or a code from the closed vocabulary."""

    instruction: str
    reply_context: bytes
    envelope: str | None = None
    folder: str | None = None
    hub_code: HubCode | None = None


class InstructionId(Message):
    instruction: str


class CheckpointText(Message):
    """A signed checkpoint of the audit log, for the hub to witness; or the same with the hub's signature."""

    text: str


HELLO = Verb("hello", Hello, Welcome)
DELIVER_DOCUMENT = Verb("deliver_document", SignedText, Outcome)
DELIVER_INSTRUCTION = Verb("deliver_instruction", InstructionStart, InstructionAnswer, "upload")
OUTBOX = Verb("outbox", Empty, Outgoing, "server")
DELIVERED = Verb("delivered", InstructionId, Empty)
CHECKPOINTS = Verb("checkpoints", Empty, CheckpointText, "server")
WITNESSED = Verb("witnessed", CheckpointText, Empty)

LINK = (HELLO, DELIVER_DOCUMENT, DELIVER_INSTRUCTION, OUTBOX, DELIVERED, CHECKPOINTS, WITNESSED)


# --- intake.sock: intake asks, core answers -----------------------------------------------------------------


class IngestOrder(Message):
    """Take in a folder. `source` lies under one of the configured source roots; `clinical` is a CSV file or nothing.

    `hold_out` is the share of patients kept for evaluation, 0 to 1.
    """

    order: str
    project: str
    dataset: str
    source: str
    profile: str
    clinical: str | None = None
    hold_out: float


class IngestProgress(Message):
    """`done` of `total` files read."""

    order: str
    done: int
    total: int


class IngestReport(Message):
    """How an order ended. `folder` is below the handover folder and holds what core may publish; nothing on failure.

    `counts` (studies_in, studies_out, instances_out, …) and `excluded` (by reason) are numbers alone.
    """

    order: str
    folder: str | None
    counts: Mapping[str, int]
    excluded: Mapping[str, int]
    quarantine_destroyed: bool


ORDERS = Verb("orders", Empty, IngestOrder, "server")
PROGRESS = Verb("progress", IngestProgress, Empty)
REPORT = Verb("report", IngestReport, Empty)

INTAKE = (ORDERS, PROGRESS, REPORT)


# --- broker.sock: core asks, the broker answers -------------------------------------------------------------


class PreparedAnswer(Message):
    job: str
    fingerprint: str


class JobId(Message):
    job: str


class JobHappened(Message):
    """`mediator.ports.JobEvent` on the wire."""

    kind: Literal["started", "progress", "done", "exited", "out_of_memory", "time_limit", "stopped", "out_full"]
    task: int = 0
    fraction: float = 0.0
    status: int = 0


class FinaliseTask(Message):
    job: str
    task: int


class FileStart(Message):
    """One file of `/out/<task>/`; exactly `size_bytes` raw bytes follow."""

    name: str
    size_bytes: int


class Terminate(Message):
    job: str
    grace_s: float


class Keep(Message):
    jobs: tuple[str, ...]


class Removed(Message):
    jobs: tuple[str, ...]


PREPARE = Verb("prepare", SignedText, PreparedAnswer)
EXECUTE = Verb("execute", JobId, JobHappened, "server")
FINALISE = Verb("finalise", FinaliseTask, FileStart, "download")
TERMINATE = Verb("terminate", Terminate, Empty)
CLEAN = Verb("clean", Keep, Removed)

BROKER = (PREPARE, EXECUTE, FINALISE, TERMINATE, CLEAN)


# --- admin.sock: the command line asks, core answers --------------------------------------------------------


class Status(Message):
    site: str
    cloister: str
    config: str
    started: datetime
    paused: bool
    jobs_running: int
    datasets: int
    permits: int
    audit_records: int
    newest_audit: datetime | None
    revocation_number: int | None
    revocation_age_s: float | None
    undelivered: int


class Paused(Message):
    """How many jobs were stopped, and whether all had ended when the answer was given."""

    stopped: int
    all_ended: bool


class Ingest(Message):
    project: str
    dataset: str
    source: str
    profile: str
    clinical: str | None = None
    hold_out: float


class IngestHappened(Message):
    """`progress` counts files; `published` carries the new version's id and its numbers."""

    kind: Literal["progress", "published", "failed"]
    done: int = 0
    total: int = 0
    dataset_version: str | None = None
    counts: Mapping[str, int] = {}
    excluded: Mapping[str, int] = {}


class DatasetLine(Message):
    dataset: str
    project: str
    dataset_version: str
    created: datetime
    counts: Mapping[str, int]
    excluded: Mapping[str, int]
    withdrawn: bool


class Datasets(Message):
    items: tuple[DatasetLine, ...]


class WithdrawDataset(Message):
    """Withdraw a dataset version from use; its files go, its id and numbers stay on record."""

    dataset_version: str


class PermitLine(Message):
    permit: str
    permit_version: int
    project: str
    not_before: datetime
    expires: datetime
    accepted: bool
    revoked: bool


class Permits(Message):
    items: tuple[PermitLine, ...]


class PermitId(Message):
    permit: str
    permit_version: int


class RunLine(Message):
    run: str
    permit: str
    permit_version: int
    rounds: int
    rounds_served: int
    bytes_out: int
    epsilon: float
    state: str


class Runs(Message):
    items: tuple[RunLine, ...]


class JobLine(Message):
    job: str
    run: str
    kind: str
    state: str
    round: int
    fraction: float
    code: Code | None
    updated: datetime


class Jobs(Message):
    items: tuple[JobLine, ...]


class ImageLine(Message):
    image: str
    approved: datetime
    note: str


class Images(Message):
    items: tuple[ImageLine, ...]


class ApproveImage(Message):
    """An image by digest. `note` is the approver's own words for hospital staff, and enters no record."""

    image: str
    note: str = ""


class ProbeLine(Message):
    probe: str
    passed: bool


class CanaryResult(Message):
    fingerprint: str
    passed: bool
    probes: tuple[ProbeLine, ...]


STATUS = Verb("status", Empty, Status)
PAUSE = Verb("pause", Empty, Paused)
RESUME = Verb("resume", Empty, Empty)
INGEST = Verb("ingest", Ingest, IngestHappened, "server")
DATASETS = Verb("datasets", Empty, Datasets)
DATASET_WITHDRAW = Verb("dataset_withdraw", WithdrawDataset, Empty)
PERMITS = Verb("permits", Empty, Permits)
PERMIT_TEXT = Verb("permit_text", PermitId, SignedText)
PERMIT_ACCEPT = Verb("permit_accept", SignedText, Outcome)
RUNS = Verb("runs", Empty, Runs)
JOBS = Verb("jobs", Empty, Jobs)
IMAGES = Verb("images", Empty, Images)
IMAGE_APPROVE = Verb("image_approve", ApproveImage, Empty)
CANARY = Verb("canary", Empty, CanaryResult)
AUDIT_CHECKPOINT = Verb("audit_checkpoint", Empty, CheckpointText)
DOCUMENTS_IMPORT = Verb("documents_import", SignedText, Outcome)

ADMIN = (
    STATUS, PAUSE, RESUME, INGEST, DATASETS, PERMITS, PERMIT_TEXT, RUNS, JOBS, IMAGES, IMAGE_APPROVE, CANARY,
    AUDIT_CHECKPOINT, DOCUMENTS_IMPORT, PERMIT_ACCEPT, DATASET_WITHDRAW,
)  # fmt: skip
