"""Every action, verdict and code has words; a sentence says who, what, under which permit, and why."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import pytest

from mediator.audit import Action, AuditRecord, Verdict
from mediator.audit_words import ACTIONS, LogSubject, belongs, person_of, role_of, sentence, who
from mediator.code_words import WORDS
from mediator.errors import EXCEPTIONS, Code
from mediator.roles import Role
from tests.mediator.test_audit import record

EPOCH = f"epoch/1/kept/4/after/0/9/{'ab' * 32}"


def _record(action: Action, **changes: object) -> AuditRecord:
    made = record(action=action, object=EPOCH if action is Action.EPOCH_OPEN else "run-1/2/train/1")
    return replace(made, **changes)  # type: ignore[arg-type]


def test_every_action_and_every_code_has_words_of_its_own() -> None:
    assert set(ACTIONS) == set(Action) and set(WORDS) == set(Code)
    assert len(set(WORDS.values())) == len(Code)
    assert all(WORDS[code] and WORDS[code] == WORDS[code].strip(" .") for code in Code)
    for exception in EXCEPTIONS:
        assert any(exception in words for words in WORDS.values())


@pytest.mark.parametrize("action", Action)
def test_an_action_reads_otherwise_for_each_verdict_that_decides_otherwise(action: Action) -> None:
    told = {verdict: sentence(_record(action, verdict=verdict)) for verdict in Verdict}
    for words in told.values():
        assert words.startswith("the node ") and "under permit lesions version 2" in words
        assert "{" not in words and "  " not in words and words.isprintable()
    assert told[Verdict.ALLOWED] != told[Verdict.REFUSED] != told[Verdict.DONE]


def test_a_refusal_says_why_in_words_and_by_its_code() -> None:
    for code in Code:
        words = sentence(record(verdict=Verdict.REFUSED, code=code.value))
        assert words.endswith(f": {WORDS[code]} ({code.value})")
    assert sentence(record(verdict=Verdict.REFUSED, code="permit_expired")) == (
        "the node refused to admit task train of run run-1, round 2, attempt 1, under permit lesions version 2: "
        "the permit has expired (permit_expired)"
    )


def test_a_person_is_named_with_their_role_and_an_unknown_one_is_not() -> None:
    assert who("it_admin.a.silva") == "a.silva (hospital IT)"
    assert who("data_steward.unknown") == "somebody (data steward, not known by name)"
    assert who("core") == "the node" and role_of("core") is None and person_of("core") == ""
    assert person_of("it_admin.unknown") == "" and person_of("it_admin.a.silva") == "a.silva"
    assert {role_of(f"{role.value}.x") for role in Role} == set(Role)
    assert role_of("it_administrator") is None


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ("site/aachen", "site aachen"),
        (f"run-1/2/train/1@{'ab' * 32}", f"root id {'ab' * 32}"),
        ("witness/1/20", "epoch 1 with 20 records"),
        ("witness/20", "the hub's line over 20 records"),
        ("refusals/link/unread/2026-11-27/7", "7 on 2026-11-27, of link/unread"),
        (f"document/{'cd' * 32}", f"SHA-256 {'cd' * 32}"),
        ("state", "state"),
        (f"sha256:{'ab' * 32}", f"sha256:{'ab' * 32}"),
    ],
)
def test_what_a_record_is_about_is_told_whole(about: str, words: str) -> None:
    assert words in sentence(record(object=about))
    for part in re.split(r"[/@]", about)[1:]:
        assert part in sentence(record(object=about)) or part == "unread"


def test_subjects_hold_what_they_are_named_for() -> None:
    held = {
        subject: {
            (action, verdict)
            for action, verdict in product(Action, Verdict)
            if belongs(_record(action, verdict=verdict), subject)
        }
        for subject in LogSubject
    }
    assert held[LogSubject.LEFT] == {
        (Action.RELEASE, Verdict.DONE), (Action.RELEASE, Verdict.REFUSED),
        (Action.REDELIVER, Verdict.DONE), (Action.REDELIVER, Verdict.REFUSED),
        (Action.AIRLOCK_RELEASE, Verdict.ALLOWED), (Action.AIRLOCK_RELEASE, Verdict.DONE),
    }  # fmt: skip
    assert {action for action, _ in held[LogSubject.DELETED]} == {
        Action.QUARANTINE_DESTROY, Action.WORK_DELETE, Action.AIRLOCK_DELETE, Action.DATASET_WITHDRAW,
        Action.DEID_KEY_RETIRE,
    }  # fmt: skip
    assert held[LogSubject.REFUSED] == {(action, Verdict.REFUSED) for action in Action}
    assert not held[LogSubject.PEOPLE] and belongs(record(actor="it_admin.unknown"), LogSubject.PEOPLE)
    assert belongs(record(verdict=Verdict.REFUSED, code="permit_revoked"), LogSubject.PERMITS)
    assert not belongs(record(), LogSubject.PERMITS)


def test_an_answer_that_the_hub_has_is_not_called_an_output() -> None:
    """A refusal is an answer as well."""
    words = sentence(record(action=Action.DELIVER, object="run-1/2/train/1", verdict=Verdict.DONE))
    assert "the node handed to the hub the answer to task train of run run-1" in words and "output" not in words


def test_a_record_that_names_no_epoch_is_told_as_it_is() -> None:
    assert sentence(record(action=Action.EPOCH_OPEN, object="epoch/none")).startswith(
        "the node decided to begin epoch/none"
    )
