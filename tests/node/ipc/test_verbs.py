"""The verb lists: who may ask what is a short, closed list."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import get_args

from mediator import roles
from mediator.errors import Code, HubCode
from mediator.ports import JobEvent
from node.ipc import jobs, verbs
from node.ipc.messages import MAX_MESSAGE_BYTES, Message, pack, unpack


def test_the_broker_accepts_exactly_five_verbs() -> None:
    assert {verb.name for verb in verbs.BROKER} == {"prepare", "execute", "finalise", "terminate", "clean"}


def test_link_and_intake_may_ask_nothing_of_the_staff() -> None:
    staff = {verb.name for verb in verbs.ADMIN}
    assert not staff & {verb.name for verb in (*verbs.LINK, *verbs.INTAKE, *verbs.BROKER)}


def test_every_verb_of_the_staff_has_its_roles() -> None:
    assert {verb.name for verb in verbs.ADMIN} == roles.PERMISSIONS.keys()


def test_names_are_unique_on_each_socket() -> None:
    for listed in (verbs.LINK, verbs.INTAKE, verbs.BROKER, verbs.ADMIN):
        assert len({verb.name for verb in listed}) == len(listed)


def test_every_message_is_strict_frozen_and_versioned() -> None:
    for listed in (verbs.LINK, verbs.INTAKE, verbs.BROKER, verbs.ADMIN):
        for verb in listed:
            for message in (verb.request, verb.response):
                assert issubclass(message, Message)
                assert message.model_config.get("extra") == "forbid" and message.model_config.get("strict") is True
                assert message.model_config.get("frozen") is True and "version" in message.model_fields


def test_a_job_event_crosses_field_by_field() -> None:
    fields = {field.name for field in dataclasses.fields(JobEvent)}
    assert fields == verbs.JobHappened.model_fields.keys() - {"version"}
    assert set(get_args(verbs.JobHappened.model_fields["kind"].annotation)) == set(
        get_args(JobEvent.__dataclass_fields__["kind"].type) or get_args(_resolved(JobEvent, "kind"))
    )


def test_typed_values_survive_the_way() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    out = verbs.Outgoing(instruction="r/1/train/1", reply_context=b"\x00\xfe", hub_code=HubCode.PAUSED)
    line = jobs.JobLine(
        job="j", run="r", kind="train", state="done", round=1, fraction=0.5, code=Code.STOPPED, updated=moment
    )
    answer = jobs.Jobs(items=(line,))
    assert unpack(verbs.Outgoing, pack(out)) == out
    assert unpack(jobs.Jobs, pack(answer)) == answer


def test_the_largest_signed_document_fits_twice() -> None:
    from mediator.signatures import MAX_SIGNED_BYTES

    assert 2 * MAX_SIGNED_BYTES < MAX_MESSAGE_BYTES


def _resolved(cls: type, name: str) -> object:
    from typing import get_type_hints

    return get_type_hints(cls)[name]
