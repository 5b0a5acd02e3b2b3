"""Who on the hospital's staff may ask the node for what. A role or a verb not in the table may nothing."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from mediator.errors import Code, Denied, Reason


class Role(StrEnum):
    """A hospital's own people. A researcher is no role here: researchers speak through signed run orders."""

    IT_ADMIN = "it_admin"
    DATA_STEWARD = "data_steward"
    AUDITOR = "auditor"


_EVERYBODY = frozenset(Role)
_STAFF = frozenset({Role.IT_ADMIN, Role.DATA_STEWARD})
_IT_ADMIN = frozenset({Role.IT_ADMIN})
_DATA_STEWARD = frozenset({Role.DATA_STEWARD})

# Who keeps the machines does not decide about data, and who decides about data does not choose what code runs.
PERMISSIONS: Mapping[str, frozenset[Role]] = {
    # a number to sign: who asks for one has been told nothing yet
    "challenge": _EVERYBODY,
    "status": _EVERYBODY,
    "permits": _EVERYBODY,
    "permit_text": _EVERYBODY,
    "runs": _EVERYBODY,
    "jobs": _EVERYBODY,
    "set_aside": _EVERYBODY,
    "job_show": _EVERYBODY,
    "job_stop": _STAFF,
    # what a job prints is data about patients, and only who may open the engine's socket can read it
    "job_logs": _IT_ADMIN,
    "images": _EVERYBODY,
    "image_show": _EVERYBODY,
    "datasets": _EVERYBODY,
    "dataset_budget": _EVERYBODY,
    "audit_checkpoint": _EVERYBODY,
    "log_state": _EVERYBODY,
    "epoch_open": _IT_ADMIN,
    "clock_accept": _IT_ADMIN,
    "pause": _STAFF,
    "resume": _STAFF,
    "documents_import": _STAFF,
    "analysis_start": _STAFF,
    "airlock_list": _EVERYBODY,
    "airlock_show": _DATA_STEWARD,
    "airlock_review": _DATA_STEWARD,
    "airlock_take": _DATA_STEWARD,
    "airlock_taken": _DATA_STEWARD,
    "permit_accept": _DATA_STEWARD,
    "ingest": _DATA_STEWARD,
    "imports": _EVERYBODY,
    "import_follow": _DATA_STEWARD,
    "import_stop": _DATA_STEWARD,
    "import_retry": _DATA_STEWARD,
    "import_give_up": _DATA_STEWARD,
    "dataset_withdraw": _DATA_STEWARD,
    "image_add": _IT_ADMIN,
    "image_approve": _IT_ADMIN,
    "image_withdraw": _STAFF,
    "canary": _IT_ADMIN,
    "self_test": _IT_ADMIN,
    "deid_key_retire": _IT_ADMIN,
}


def may(role: str, verb: str, permissions: Mapping[str, frozenset[Role]] = PERMISSIONS) -> bool:
    """Whether `role` may call `verb`."""
    return any(allowed.value == role for allowed in permissions.get(verb, frozenset()))


def require(role: str, verb: str, permissions: Mapping[str, frozenset[Role]] = PERMISSIONS) -> None:
    """Raise `Denied` (`role_not_permitted`) unless `role` may call `verb`."""
    if not may(role, verb, permissions):
        raise Denied(Reason(Code.ROLE_NOT_PERMITTED, "this role may not do that"), hint="ask who holds the role")
