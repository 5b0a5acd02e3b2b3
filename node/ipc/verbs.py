"""Everything the four sockets of a node can be asked, one list per socket; what is not on a list is refused.

`LINK`, `INTAKE` and `ADMIN` are served by core on `link.sock`, `intake.sock` and `admin.sock`; `BROKER` by the broker
on `broker.sock`. Messages name studies, versions and runs by their public ids and never a patient or a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from mediator.errors import Code, HubCode
from node.ipc import airlock, deid_keys, images, jobs
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
    """The link stands; `connected` when the hub has it too."""

    link_version: str
    connected: bool


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


class IngestOrderText(Message):
    """An ingest order (`mediator.deid.orders.IngestOrder`) as canonical JSON."""

    text: str


class IngestProgress(Message):
    """How far an order is: `done` of `total` files in this stage (`total` is 0 while it is not known)."""

    order: str
    stage: Literal["take_in", "deidentify", "read_pixels", "hand_over", "forget"]
    done: int
    total: int


class IngestEnd(Message):
    """An order is over: its folder under handover is complete, or `error` says why there is none, `hint` what to do.

    `destroyed` counts the quarantined files that were destroyed; `again`: nothing is wrong with the order itself.
    """

    order: str
    destroyed: int
    error: str = ""
    hint: str = ""
    again: bool = False


ORDERS = Verb("orders", Empty, IngestOrderText, "server")
PROGRESS = Verb("progress", IngestProgress, Empty)
REPORT = Verb("report", IngestEnd, Empty)

INTAKE = (ORDERS, PROGRESS, REPORT)


# --- broker.sock: core asks, the broker answers -------------------------------------------------------------


class PreparedAnswer(Message):
    job: str
    fingerprint: str


class JobId(Message):
    job: str


class JobHappened(Message):
    """`mediator.ports.JobEvent` on the wire."""

    kind: Literal[
        "started", "progress", "done", "failed", "exited", "out_of_memory", "time_limit", "stopped", "out_full"
    ]
    task: int = 0
    fraction: float = 0.0
    status: int = 0
    code: Code | None = None


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
    """The node in one look. `sandbox` is what the newest canary found, `witnessed` how many records a hub co-signed,
    `unrecorded` how much of what was stopped the store has not taken yet."""

    site: str
    cloister: str
    config: str
    started: datetime
    paused: bool
    containers: int
    jobs_unfinished: int
    datasets: int
    permits: int
    undelivered: int
    revocation_number: int | None
    revocation_age_s: float | None
    hub_connected: bool
    audit_records: int
    audit_checkpointed: int
    audit_witnessed: int
    airlock_waiting: int = 0
    airlock_overdue: int = 0
    unrecorded: int = 0
    sandbox: Literal["held", "failed", "unknown"]
    sandbox_age_s: float | None = None


class Paused(Message):
    """How many containers were ended, whether all were when the answer was given, whether the log has the pause yet,
    and whether a restart keeps it."""

    stopped: int
    all_ended: bool
    recorded: bool = True
    kept: bool = True


class IngestColumn(Message):
    """A clinical column that may survive: a number in a range, or one of a few categories."""

    name: str
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] = ()


class Ingest(Message):
    """Take in a folder (`source`, absolute). `clinical` names a CSV file inside it; `test_fraction` of the labelled
    patients is held out for evaluation."""

    project: str
    dataset: str
    source: str
    profile: str
    clinical: str | None = None
    columns: tuple[IngestColumn, ...] = ()
    test_fraction: float = 0.0


class IngestHappened(Message):
    """`progress` counts files of a stage; `published` carries the new version's id and its numbers."""

    kind: Literal["progress", "published", "failed"]
    order: str
    stage: str = ""
    done: int = 0
    total: int = 0
    dataset_version: str | None = None
    counts: Mapping[str, int] = {}
    excluded: Mapping[str, int] = {}
    error: str = ""
    hint: str = ""
    again: bool = False


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
    """A run as the ledger has it. `releases` counts what left, `bytes_charged` is what it may at most have weighed."""

    run: str
    permit: str
    permit_version: int
    rounds: int
    rounds_charged: int
    bytes_charged: int
    bytes_released: int
    releases: int
    epsilon: float
    state: str


class Runs(Message):
    items: tuple[RunLine, ...]


class CanaryAnswer(Message):
    """What a canary found: empty `failures` when the sandbox held."""

    fingerprint: str
    failures: tuple[str, ...]


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
CANARY = Verb("canary", Empty, CanaryAnswer)
AUDIT_CHECKPOINT = Verb("audit_checkpoint", Empty, CheckpointText)
DOCUMENTS_IMPORT = Verb("documents_import", SignedText, Outcome)

ADMIN = (
    STATUS, PAUSE, RESUME, INGEST, DATASETS, PERMITS, PERMIT_TEXT, RUNS, CANARY,
    AUDIT_CHECKPOINT, DOCUMENTS_IMPORT, PERMIT_ACCEPT, DATASET_WITHDRAW,
    *jobs.LISTED, *images.LISTED, *airlock.LISTED, *deid_keys.LISTED,
)  # fmt: skip
