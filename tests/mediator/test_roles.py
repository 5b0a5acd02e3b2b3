from __future__ import annotations

import pytest

from mediator.errors import Code, Denied
from mediator.roles import PERMISSIONS, Role, may, require

# written out once more, by hand: i = IT admin, s = data steward, a = auditor
EXPECTED = {
    "challenge": "isa",
    "status": "isa", "permits": "isa", "runs": "isa", "job_show": "isa", "job_stop": "is", "job_logs": "i",
    "jobs": "isa", "set_aside": "isa", "images": "isa", "datasets": "isa", "dataset_budget": "isa",
    "log_state": "isa", "epoch_open": "i", "clock_accept": "i",
    "audit_checkpoint": "isa", "pause": "is", "resume": "is", "documents_import": "is", "permit_accept": "s",
    "permit_text": "isa", "analysis_start": "is", "airlock_list": "isa", "airlock_show": "s", "airlock_review": "s",
    "airlock_take": "s", "airlock_taken": "s",
    "ingest": "s", "dataset_withdraw": "s", "image_approve": "i", "canary": "i", "self_test": "i",
    "deid_key_retire": "i",
    "image_add": "i", "image_show": "isa", "image_withdraw": "is",
    "imports": "isa", "import_follow": "s", "import_stop": "s", "import_retry": "s", "import_give_up": "s",
}  # fmt: skip
LETTER = {Role.IT_ADMIN: "i", Role.DATA_STEWARD: "s", Role.AUDITOR: "a"}


def test_the_whole_table() -> None:
    assert PERMISSIONS.keys() == EXPECTED.keys()
    for verb, letters in EXPECTED.items():
        for role in Role:
            assert may(role, verb) == (LETTER[role] in letters), (role, verb)


@pytest.mark.parametrize("role", ["", "root", "researcher", "IT_ADMIN", "admin"])
def test_an_unknown_role_may_nothing(role: str) -> None:
    assert not any(may(role, verb) for verb in PERMISSIONS)


def test_an_unknown_verb_is_nobodys() -> None:
    assert not any(may(role, "export_images") for role in Role)


def test_who_keeps_the_machines_does_not_accept_permits() -> None:
    with pytest.raises(Denied) as caught:
        require("it_admin", "permit_accept")
    assert caught.value.reasons[0].code is Code.ROLE_NOT_PERMITTED
    require("data_steward", "permit_accept")
