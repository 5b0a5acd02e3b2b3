"""The verbs: who may ask what is a short, closed list."""

from __future__ import annotations

import ast
import dataclasses
import json
import subprocess
import sys
import typing
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.client.ports import OutgoingReply
from mediator import roles
from mediator.errors import Code, HubCode, Malformed
from mediator.grammar import MAX_SIGNED_BYTES
from node.ipc import broker, intake, jobs, link
from node.ipc.caller import CHALLENGE
from node.ipc.messages import MAX_MESSAGE_BYTES, MESSAGE, VERSION, Empty, pack, unpack
from node.ipc.staff import STAFF
from node.ipc.verb import Handlers, Verb, check_agreement, verbs_in

BROKER, LINK, INTAKE = verbs_in(broker), verbs_in(link), verbs_in(intake)
SOCKETS = (LINK, INTAKE, BROKER, STAFF)


def test_the_broker_accepts_exactly_five_verbs() -> None:
    assert {verb.name for verb in BROKER} == {"prepare", "execute", "finalise", "terminate", "clean"}


def test_link_and_intake_may_ask_nothing_of_the_staff() -> None:
    staff = {verb.name for verb in STAFF}
    assert not staff & {verb.name for verb in (*LINK, *INTAKE, *BROKER)}


def test_every_verb_of_the_staff_has_its_roles() -> None:
    assert {verb.name for verb in (*STAFF, CHALLENGE)} == roles.PERMISSIONS.keys()


def test_names_are_unique_on_each_socket() -> None:
    for listed in SOCKETS:
        assert len({verb.name for verb in listed}) == len(listed)


def test_every_message_is_frozen_and_of_types_that_the_codec_knows() -> None:
    for listed in SOCKETS:
        for verb in (*listed, CHALLENGE):
            for message in (verb.request, verb.answer):
                (kind,) = [each for each in typing.get_args(message) if each is not ...] or [message]
                assert dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen, verb.name


def test_typed_values_survive_the_way() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    out = OutgoingReply(instruction="r/1/train/1", reply_context=b"\x00\xfe", hub_code=HubCode.PAUSED)
    line = jobs.JobLine(
        job="j", run="r", kind="train", state="done", round=1, fraction=0.5, code=Code.STOPPED, updated=moment
    )
    assert unpack(OutgoingReply, pack(out)) == out
    assert unpack(tuple[jobs.JobLine, ...], pack((line, line))) == (line, line)
    assert unpack(tuple[jobs.JobLine, ...], pack(())) == ()


def test_the_largest_signed_document_fits_twice() -> None:
    assert 2 * MAX_SIGNED_BYTES < MAX_MESSAGE_BYTES


# --- words, handlers and the table of who may are one -----------------------------------------------------------

ASK, TELL = Verb("ask", Empty, Empty), Verb("tell", Empty, Empty)


def test_three_that_agree_are_taken() -> None:
    check_agreement([ASK, TELL], [TELL, ASK], ["ask", "tell"])
    check_agreement([ASK], [ASK], None)


@pytest.mark.parametrize(
    ("verbs", "handlers", "table", "says"),
    [
        ([ASK, TELL], [ASK], ["ask", "tell"], "without a handler: tell"),
        ([ASK], [ASK, TELL], ["ask"], "answered and not listed: tell"),
        ([ASK, TELL], [ASK, TELL], ["ask"], "that no role may ask: tell"),
        ([ASK], [ASK], ["ask", "tell"], "in the table of roles alone: tell"),
        ([ASK, ASK], [ASK], ["ask"], "named twice: ask"),
        ([ASK], [Verb("ask", Empty, Empty, "server")], ["ask"], "answered and not listed: ask"),
        ([ASK], [ASK], [], "that no role may ask: ask"),
    ],
)
def test_one_verb_more_or_less_anywhere_is_a_defect(verbs: Any, handlers: Any, table: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_agreement(verbs, handlers, table)


def test_two_functions_under_one_verb_are_a_defect() -> None:
    handlers: Handlers[None] = Handlers()
    handlers.answers(ASK)(lambda *_: Empty())
    with pytest.raises(ValueError, match="ask"):
        handlers.answers(ASK)(lambda *_: Empty())


def test_a_verb_is_listed_by_being_written_down() -> None:
    words = ModuleType("words")
    words.ASK, words.other = ASK, 7  # type: ignore[attr-defined]
    assert verbs_in(words) == (ASK,)


def test_between_processes_nothing_is_pydantics() -> None:
    """It is for configuration and for HTTP: one codec, and one set of limits, between a node's processes."""
    for path in Path(sys.modules["node.ipc.verb"].__file__ or "").parent.glob("*.py"):
        for each in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in each.names] if isinstance(each, ast.Import) else []
            names += [each.module or ""] if isinstance(each, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "pydantic" for name in names), path
    code = "import sys, node.ipc.server, node.ipc.staff, node.ipc.runner; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- a peer that says anything ------------------------------------------------------------------------------------

KINDS = [kind for listed in SOCKETS for verb in listed for kind in (verb.request, verb.answer)]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("2026-01-02T00:00:00Z")


def members(kind: Any) -> list[str]:
    (each,) = [found for found in typing.get_args(kind) if found is not ...] or [kind]
    return [field.name for field in dataclasses.fields(each)]


@given(st.sampled_from(KINDS), st.data())
def test_whatever_a_peer_sends_is_a_message_or_an_error_of_ours(kind: Any, data: st.DataObject) -> None:
    keys = st.text() | st.sampled_from(["x", *members(kind)])
    values = st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=20
    )
    plain = data.draw(st.fixed_dictionaries(dict.fromkeys(members(kind), values)) | values)
    body = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    try:
        message = unpack(kind, MESSAGE + VERSION + body)
    except Malformed as error:
        assert len(error.message) < 400
        return
    assert pack(message)[2:] == body


@given(st.sampled_from(KINDS), st.binary(max_size=200))
def test_bytes_of_any_kind_are_a_message_or_an_error_of_ours(kind: Any, raw: bytes) -> None:
    for frame in (raw, MESSAGE + raw, MESSAGE + VERSION + raw):
        try:
            message = unpack(kind, frame)
        except Malformed:
            continue
        assert pack(message) == frame
