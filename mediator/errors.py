"""Every error of Cloister, and the one table that maps it outward.

    CloisterError                 internal_error       1   our bug, or a class nobody mapped
    ├── UsageFault                usage                2   the command, its arguments or the configuration is wrong
    ├── Malformed                 malformed            2   bytes that are not the document they claim to be
    │   └── UnsupportedVersion    unsupported_version  2   a document of a version we do not know
    ├── Denied                    denied               3   a gate said no; carries every reason at once
    ├── Ended                     ended                3   what ran has ended or was stopped; nobody refused it
    ├── IntegrityBroken           integrity_broken     4   something stored is not what was written
    └── NotNow                    not_now              5   nothing is wrong, try again later
        └── EngineUnavailable     engine_unavailable   5   the container engine does not answer

Exit codes: 0 done, 1 our bug, 2 usage, 3 refused by a rule, 4 integrity broken, 5 not now (safe to retry).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

# What programs that train on images stumble over: Python's own, then those of pyarrow, pydicom, numpy, torch (the
# accelerator's memory) and safetensors, and the job library's two. What ended a researcher's program is worth telling
# and dangerous to tell: an exception's text quotes what the program choked on. So a job may name the *class* of its
# exception, and only one on this list leaves; every other is `other`. Adding one adds to what can leave, and the threat
# model says how much that is.
EXCEPTIONS = (
    "AssertionError", "AttributeError", "EOFError", "FileNotFoundError", "FloatingPointError", "ImportError",
    "IndexError", "KeyError", "MemoryError", "ModuleNotFoundError", "NameError", "NotImplementedError", "OSError",
    "OverflowError", "PermissionError", "RecursionError", "RuntimeError", "StopIteration", "TimeoutError", "TypeError",
    "UnboundLocalError", "UnicodeDecodeError", "ValueError", "ZeroDivisionError",
    "ArrowInvalid", "InvalidDicomError", "LinAlgError", "NoReply", "OutOfMemoryError", "SafetensorError",
    "UnsupportedContract",
)  # fmt: skip


def raised_word(exception: str) -> str:
    """The code's text for the name of an exception class: `EOFError` is `raised_eof_error`."""
    return "raised_" + re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", exception).lower()


class Code(StrEnum):
    """Why a gate refused: stable, closed, and safe to show to hospital staff and in the audit log."""

    _ignore_ = ["exception", "members"]
    members = vars()

    # documents and signatures
    MALFORMED = "malformed"
    UNSUPPORTED_VERSION = "unsupported_version"
    BAD_SIGNATURE = "bad_signature"
    UNTRUSTED_KEY = "untrusted_key"
    DOCUMENT_CONFLICT = "document_conflict"
    # a node's certificate at the hub's door
    CERTIFICATE_REPLACED = "certificate_replaced"
    RENEWED_TWICE = "renewed_twice"
    # gate 1: the permit and who asks
    PERMIT_MISSING = "permit_missing"
    PERMIT_NOT_YET_VALID = "permit_not_yet_valid"
    PERMIT_EXPIRED = "permit_expired"
    PERMIT_REVOKED = "permit_revoked"
    PERMIT_SUPERSEDED = "permit_superseded"
    PERMIT_NOT_ACCEPTED = "permit_not_accepted"
    ACCEPTANCE_EXPIRED = "acceptance_expired"
    CONDITION_UNENFORCEABLE = "condition_unenforceable"
    METRIC_UNPROTECTED = "metric_unprotected"
    PERMIT_TOO_LARGE = "permit_too_large"
    TENSOR_ORDER = "tensor_order"
    REVOCATION_LIST_MISSING = "revocation_list_missing"
    REVOCATION_LIST_STALE = "revocation_list_stale"
    REVOCATION_LIST_ROLLED_BACK = "revocation_list_rolled_back"
    REVOCATION_LIST_FORKED = "revocation_list_forked"
    CLOCK_WENT_BACK = "clock_went_back"
    LOG_SET_BACK = "log_set_back"
    EPOCH_OVER = "epoch_over"
    PERSON_NOT_NAMED = "person_not_named"
    RUN_ORDER_MISSING = "run_order_missing"
    RUN_ORDER_EXPIRED = "run_order_expired"
    RUN_ORDER_MISMATCH = "run_order_mismatch"
    SITE_NOT_NAMED = "site_not_named"
    IMAGE_NOT_PERMITTED = "image_not_permitted"
    IMAGE_NOT_APPROVED = "image_not_approved"
    DATASET_NOT_PERMITTED = "dataset_not_permitted"
    DATASET_MISSING = "dataset_missing"
    TOO_FEW_STUDIES = "too_few_studies"
    DATASET_PROTECTED = "dataset_protected"
    RESOURCES_EXCEEDED = "resources_exceeded"
    HOSPITAL_PAUSED = "hospital_paused"
    ROLE_NOT_PERMITTED = "role_not_permitted"
    VERB_NOT_PERMITTED = "verb_not_permitted"
    CHALLENGE_STALE = "challenge_stale"
    # gate 1: the instruction
    KIND_NOT_PERMITTED = "kind_not_permitted"
    CONFIG_NOT_PERMITTED = "config_not_permitted"
    MODEL_NOT_PERMITTED = "model_not_permitted"
    MODEL_MISMATCH = "model_mismatch"
    INSTRUCTION_MISADDRESSED = "instruction_misaddressed"
    INSTRUCTION_EXPIRED = "instruction_expired"
    INSTRUCTION_REPLAYED = "instruction_replayed"
    ROUND_ALREADY_SERVED = "round_already_served"
    ROUND_OUT_OF_RANGE = "round_out_of_range"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    TOO_MANY = "too_many"
    TOO_MANY_OPEN = "too_many_open"
    ROUNDS_EXHAUSTED = "rounds_exhausted"
    BYTES_EXHAUSTED = "bytes_exhausted"
    EPSILON_EXHAUSTED = "epsilon_exhausted"
    OUTSIDE_SCHEDULE = "outside_schedule"
    # the sandbox
    CANARY_FAILED = "canary_failed"
    SPEC_EXPIRED = "spec_expired"
    MOUNT_NOT_PERMITTED = "mount_not_permitted"
    NOT_SEALED = "not_sealed"
    GPU_UNAVAILABLE = "gpu_unavailable"
    JOB_UNKNOWN = "job_unknown"
    CONTRACT_VIOLATION = "contract_violation"
    JOB_FAILED = "job_failed"
    OUT_OF_MEMORY = "out_of_memory"
    TIME_LIMIT = "time_limit"
    STOPPED = "stopped"
    # the sandbox: which rule of the job contract was broken
    CONTRACT_MISSING = "contract_missing"
    CONTRACT_NOT_A_FOLDER = "contract_not_a_folder"
    CONTRACT_TOO_MANY_FILES = "contract_too_many_files"
    CONTRACT_UNKNOWN_NAME = "contract_unknown_name"
    CONTRACT_NOT_A_REGULAR_FILE = "contract_not_a_regular_file"
    CONTRACT_HARD_LINK = "contract_hard_link"
    CONTRACT_TOO_LARGE = "contract_too_large"
    CONTRACT_UNREADABLE = "contract_unreadable"
    CONTRACT_OUT_FULL = "contract_out_full"
    # the sandbox: the class of the exception that ended the job's program, a member for each of `EXCEPTIONS`
    for exception in EXCEPTIONS:
        members[raised_word(exception).upper()] = raised_word(exception)
    RAISED_OTHER = "raised_other"
    # gate 2: tensors
    HEADER_TOO_LARGE = "header_too_large"
    HEADER_MALFORMED = "header_malformed"
    METADATA_NOT_PERMITTED = "metadata_not_permitted"
    TENSOR_NOT_PERMITTED = "tensor_not_permitted"
    TENSOR_MISSING = "tensor_missing"
    TENSOR_SHAPE = "tensor_shape"
    TENSOR_DTYPE = "tensor_dtype"
    TENSOR_OFFSETS = "tensor_offsets"
    TRAILING_BYTES = "trailing_bytes"
    NOT_FINITE = "not_finite"
    # gate 2: metrics, counts, files
    METRICS_TOO_LARGE = "metrics_too_large"
    METRICS_MALFORMED = "metrics_malformed"
    METRIC_NOT_PERMITTED = "metric_not_permitted"
    METRIC_MISSING = "metric_missing"
    METRIC_OUT_OF_RANGE = "metric_out_of_range"
    COUNT_BELOW_THRESHOLD = "count_below_threshold"
    FILE_NOT_PERMITTED = "file_not_permitted"
    FILE_MISSING = "file_missing"
    # the files of an analysis: no hub hears of them
    TABLE_NOT_PERMITTED = "table_not_permitted"
    DOMINANCE = "dominance"
    DIFFERENCING = "differencing"
    IDENTIFIER_FOUND = "identifier_found"
    # the airlock's reviews
    REVIEWER_NOT_PERMITTED = "reviewer_not_permitted"
    REVIEW_MISMATCH = "review_mismatch"
    REVIEW_REPLAYED = "review_replayed"
    REVIEW_REFUSED = "review_refused"
    REVIEW_OVERDUE = "review_overdue"
    # an error of this node that nobody foresaw: it ends the one message that met it
    INTERNAL = "internal"
    # what failed too often while everything around it answered, and is tried no more
    SET_ASIDE = "set_aside"


# a node's certificate opens nothing any more; it was renewed twice; somebody asked for one for another key
CERTIFICATE_ALARMS = frozenset({Code.CERTIFICATE_REPLACED, Code.RENEWED_TWICE, Code.UNTRUSTED_KEY})


_RAISED = tuple(code for code in Code if code.name.startswith("RAISED_"))
_CONTRACT = tuple(code for code in Code if code.name.startswith("CONTRACT_"))

EXIT_REASONS: tuple[Code, ...] = (
    # what ended the job's program
    Code.OUT_OF_MEMORY, Code.TIME_LIMIT, *_CONTRACT, *_RAISED,
    # which rule of gate 2 the output broke
    Code.HEADER_TOO_LARGE, Code.HEADER_MALFORMED, Code.METADATA_NOT_PERMITTED, Code.TENSOR_NOT_PERMITTED,
    Code.TENSOR_MISSING, Code.TENSOR_SHAPE, Code.TENSOR_DTYPE, Code.TENSOR_OFFSETS, Code.TRAILING_BYTES,
    Code.NOT_FINITE, Code.METRICS_TOO_LARGE, Code.METRICS_MALFORMED, Code.METRIC_NOT_PERMITTED, Code.METRIC_MISSING,
    Code.METRIC_OUT_OF_RANGE, Code.FILE_NOT_PERMITTED, Code.FILE_MISSING,
)  # fmt: skip
"""What a hub hears by name, so that a researcher can mend a job without anybody reading its log.

`count_below_threshold` is none, though gate 2 has it: it would say of a group of patients that it is small.
"""


class HubCode(StrEnum):
    """All that a hub is ever told about a refusal: enough to act on, too little to carry data.

    The plain words (`plain_hub_code`), then a member for each of `EXIT_REASONS`, of the same name and value. One answer
    carries log2(len(HubCode)) = 6.1 bits at most.
    """

    _ignore_ = ["reason", "members"]

    REFUSED_PERMIT = "refused_permit"
    REFUSED_INSTRUCTION = "refused_instruction"
    REFUSED_BUDGET = "refused_budget"
    REFUSED_OUTPUT = "refused_output"
    JOB_FAILED = "job_failed"
    PAUSED = "paused"
    NOT_READY = "not_ready"
    INTERNAL = "internal"

    members = vars()
    for reason in EXIT_REASONS:
        members[reason.name] = reason.value


_INSTRUCTION_CODES = frozenset(
    {
        Code.MALFORMED, Code.UNSUPPORTED_VERSION, Code.KIND_NOT_PERMITTED, Code.CONFIG_NOT_PERMITTED,
        Code.MODEL_NOT_PERMITTED, Code.MODEL_MISMATCH, Code.INSTRUCTION_MISADDRESSED,
        Code.INSTRUCTION_EXPIRED, Code.INSTRUCTION_REPLAYED, Code.ROUND_ALREADY_SERVED,
        Code.ROUND_OUT_OF_RANGE, Code.SITE_NOT_NAMED,
        Code.RUN_ORDER_EXPIRED, Code.RUN_ORDER_MISMATCH, Code.EPOCH_OVER, Code.TOO_MANY,
    }
)  # fmt: skip
_BUDGET_CODES = frozenset(
    {Code.ATTEMPTS_EXHAUSTED, Code.ROUNDS_EXHAUSTED, Code.BYTES_EXHAUSTED, Code.EPSILON_EXHAUSTED}
)
_JOB_CODES = frozenset(
    {
        Code.JOB_FAILED, Code.OUT_OF_MEMORY, Code.TIME_LIMIT, Code.STOPPED, *_RAISED,
    }
)  # fmt: skip
_NODE_CODES = frozenset(
    {
        Code.CLOCK_WENT_BACK, Code.LOG_SET_BACK, Code.CANARY_FAILED, Code.DATASET_MISSING, Code.SPEC_EXPIRED,
        Code.MOUNT_NOT_PERMITTED, Code.NOT_SEALED, Code.GPU_UNAVAILABLE, Code.JOB_UNKNOWN, Code.OUTSIDE_SCHEDULE,
        Code.TOO_MANY_OPEN,
        # what the hub sends overtook the order, which comes by another connection (broken, say): it may ask again
        Code.RUN_ORDER_MISSING,
    }
)  # fmt: skip
_OUTPUT_CODES = frozenset(EXIT_REASONS) - _JOB_CODES | {
    Code.COUNT_BELOW_THRESHOLD, Code.DIFFERENCING, Code.DOMINANCE, Code.IDENTIFIER_FOUND, Code.TABLE_NOT_PERMITTED,
}  # fmt: skip


def hub_code(code: Code) -> HubCode:
    """What the hub hears for `code`: the exit reason of the same name where there is one, else the plain word."""
    return HubCode(code.value) if code in EXIT_REASONS else plain_hub_code(code)


def plain_hub_code(code: Code) -> HubCode:
    """One of the eight plain words for `code`; whatever has no entry of its own is about the permit."""
    if code is Code.HOSPITAL_PAUSED:
        return HubCode.PAUSED
    if code in (Code.INTERNAL, Code.SET_ASIDE):
        return HubCode.INTERNAL
    for codes, outward in (
        (_INSTRUCTION_CODES, HubCode.REFUSED_INSTRUCTION),
        (_BUDGET_CODES, HubCode.REFUSED_BUDGET),
        (_OUTPUT_CODES, HubCode.REFUSED_OUTPUT),
        (_JOB_CODES, HubCode.JOB_FAILED),
        (_NODE_CODES, HubCode.NOT_READY),
    ):
        if code in codes:
            return outward
    return HubCode.REFUSED_PERMIT


@dataclass(frozen=True)
class Reason:
    """One reason of a refusal.

    `detail` names the rule and what it compared, in words of the permit (a tensor's permitted name, a limit);
    never a value that came from a patient or out of a container.
    """

    code: Code
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}" if self.detail else str(self.code)


class CloisterError(Exception):
    """The root: an error whose text is ours and safe to print. `hint` says what to do next."""

    code: ClassVar[str] = "internal_error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageFault(CloisterError):
    """The command, its arguments or a configuration file is wrong."""

    code = "usage"
    exit_code = 2


class Malformed(CloisterError):
    """Bytes that are not the document they claim to be."""

    code = "malformed"
    exit_code = 2


class UnsupportedVersion(Malformed):
    """A document, message, record or contract of a version we do not know."""

    code = "unsupported_version"


class Denied(CloisterError):
    """A gate said no. Carries every reason at once, the first being the one shown first."""

    code = "denied"
    exit_code = 3

    def __init__(self, reasons: Iterable[Reason] | Reason, *, hint: str = "") -> None:
        self.reasons: tuple[Reason, ...] = (reasons,) if isinstance(reasons, Reason) else tuple(reasons)
        if not self.reasons:
            raise ValueError("a refusal needs at least one reason")
        super().__init__("; ".join(str(reason) for reason in self.reasons), hint=hint)

    @property
    def hub_code(self) -> HubCode:
        return hub_code(self.reasons[0].code)


class Ended(CloisterError):
    """What ran has ended before it was through, or was stopped: `reason` says how. No gate said no to it.

    It leaves with a refusal's exit code: either way there is nothing to fetch, and asking again changes nothing.
    """

    code = "ended"
    exit_code = 3

    def __init__(self, reason: Reason, *, hint: str = "") -> None:
        super().__init__(str(reason), hint=hint)
        self.reason = reason


class IntegrityBroken(CloisterError):
    """Something stored is not what was written."""

    code = "integrity_broken"
    exit_code = 4


class NotNow(CloisterError):
    """Nothing is wrong, but it cannot be done now; safe to retry."""

    code = "not_now"
    exit_code = 5


class EngineUnavailable(NotNow):
    """The container engine does not answer."""

    code = "engine_unavailable"


def exit_code_of(error: BaseException) -> int:
    """The exit code for any exception; what we do not know is our bug."""
    return error.exit_code if isinstance(error, CloisterError) else 1
