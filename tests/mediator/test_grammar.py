"""One grammar for whatever a document says: no field without a rule, and a record for everything it lets through."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediator import canonical, grammar
from mediator.airlock.review import Review
from mediator.analysis import AnalysisRules, LabelSpec
from mediator.audit import AuditRecord
from mediator.errors import CloisterError, Malformed
from mediator.grammar import MAX_PERSON, UNKNOWN, Ungrammatical, check_person
from mediator.roles import Role
from mediator.signatures import open_signed
from mediator.types import (
    ContainerSpec,
    Kind,
    PrivacyBudget,
    ReleasedObject,
    ReleaseEnvelope,
    RevocationListV2,
    RunOrder,
)
from node.ipc.caller import Caller, SignedCall
from tests.mediator import samples
from tests.mediator.test_audit import record
from tests.sim.odd_documents import odd, sign_plain

RULES = AnalysisRules(
    "train", ("csv",), 4, 1 << 16, 100, 10, 3, 10, 2, 90.0, 10.0, (LabelSpec("sex", ("female", "male")),), 1
)
ENVELOPE = ReleaseEnvelope(
    samples.SITE, "run-1/1/train/1", "lesions-2026", 2, "run-1", 1, Kind.TRAIN, "a" * 64,
    (ReleasedObject("a" * 64, 9),), samples.NOW,
)  # fmt: skip
SPEC = ContainerSpec(
    "job-1", "job", samples.IMAGE, "/data", "/in", samples.RESOURCES, samples.NOW, samples.NOW + timedelta(hours=1)
)
REVIEW = Review(samples.SITE, "file-1", "a" * 64, "b" * 64, "approve", "safe", samples.NOW)
PERMIT = samples.permit(
    privacy=PrivacyBudget(1.0, 1e-5, 1.0), analysis=RULES, kinds=(Kind.TRAIN, Kind.EVALUATE, Kind.ANALYSE)
)
# every document that somebody signs; an audit log's own lines have tests of their own
SIGNED = (
    PERMIT, samples.acceptance(versions=(samples.VERSION,), maximum_rounds=1, byte_budget=1).document, samples.order(),
    samples.revocations(), RevocationListV2(2, samples.NOW, ("p",), "a" * 64, ("q",)), samples.instruction(), ENVELOPE,
    SPEC, REVIEW, SignedCall("status", "a" * 64, "b" * 64),
)  # fmt: skip


def _parts(value: Any) -> list[Any]:
    """A document and every value it is made of that has rules of its own."""
    found, inner = [value], [getattr(value, field.name) for field in dataclasses.fields(value)]
    while inner:
        each = inner.pop()
        if dataclasses.is_dataclass(each):
            found += _parts(each)
        elif isinstance(each, tuple):
            inner += each
        elif isinstance(each, Mapping):
            inner += each.values()
    return found


def _unheard_of(kind: Any) -> list[Any]:
    """Values of a field's type that no document has."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return [value for each in arguments for value in _unheard_of(each)]
    if origin is tuple:
        return [(value,) for value in _unheard_of(arguments[0])]
    if origin is Mapping and arguments[1] is Any:
        return [{"a b": 1}, {"a\0": 1}, {"a": "b\0"}, {"a": float("inf")}, {f"k{n}": 1 for n in range(1001)}]
    if kind is str:
        return ["a\0b", "x" * 10_001, "\x1b[2J"]
    if kind is int:
        return [-1, 1 << 53]
    if kind is float:
        return [float("nan"), float("inf"), float("-inf")]
    return []


def _fields() -> list[Any]:
    each = {type(part): part for document in SIGNED for part in _parts(document)}
    return [
        pytest.param(part, field.name, typing.get_type_hints(kind)[field.name], id=f"{kind.__name__}.{field.name}")
        for kind, part in each.items()
        for field in dataclasses.fields(part)
        if _unheard_of(typing.get_type_hints(kind)[field.name])
    ]


@pytest.mark.parametrize(("part", "name", "kind"), _fields())
def test_no_field_of_a_signed_document_is_without_a_rule(part: Any, name: str, kind: Any) -> None:
    for value in _unheard_of(kind):
        with pytest.raises(ValueError, match=r"."):
            replace(part, **{name: value})


def test_every_kind_of_document_that_is_signed_is_looked_at() -> None:
    assert len(SIGNED) == 10 and len(_fields()) > 80


def test_an_ugly_id_is_refused_as_it_is_opened_with_what_would_do() -> None:
    plain = canonical.to_plain(samples.order()) | {"run": "Lung 2026"}
    ring = samples.KeyRing([samples.RESEARCHER.verify_key])
    with pytest.raises(Malformed, match="RunOrder: run is not 1 to 64 of a-z, 0-9, dot, dash, underscore") as caught:
        open_signed(RunOrder, sign_plain(samples.RESEARCHER, RunOrder.KIND, plain), ring)
    assert "lung-2026" in caught.value.hint


@dataclass(frozen=True)
class Careless:
    """A document whose maker asks nobody: signing asks again."""

    KIND: ClassVar[str] = RunOrder.KIND
    VERSION: ClassVar[int] = 1

    run: str

    def __post_init__(self) -> None:
        if self.run != "made":
            grammar.check_identifier(self.run, "run")


def test_what_opening_refuses_is_not_signed_either() -> None:
    document = Careless("made")
    object.__setattr__(document, "run", "Not Grammatical")
    with pytest.raises(Malformed, match="run is not 1 to 64"):
        samples.RESEARCHER.sign(document)


# --- what is let through can be written down -------------------------------------------------------------------


def _written(document: Any) -> list[AuditRecord]:
    """The records that a node may have to make of a document, by every name that it has."""
    permit = f"{document.permit}@{document.permit_version}" if hasattr(document, "permit_version") else ""
    names = [f"{what}/{getattr(document, name)}" for what, name in _NAMED if hasattr(document, name)]
    if isinstance(document, ReleaseEnvelope):
        names += [document.instruction, f"{document.instruction}@{document.root}"]
    if isinstance(document, type(samples.instruction())):
        names += [document.id, f"{document.id}@{'a' * 64}"]
    if isinstance(document, ContainerSpec):
        names.append(f"sandbox/{'a' * 64}")
    made = [record(object=name, permit=permit) for name in names or ["node"]]
    return made + [record(actor=document.site) for _ in [0] if hasattr(document, "site")]


_NAMED = (
    ("run-order", "run"), ("run", "run"), ("releases", "run"), ("site", "site"), ("revocation-list", "number"),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.data())
@pytest.mark.parametrize("document", SIGNED, ids=lambda document: type(document).__name__)
def test_whatever_opens_can_be_recorded(document: Any, data: st.DataObject) -> None:
    try:
        opened = canonical.from_plain(type(document), data.draw(odd(document)))
    except Malformed:
        return
    assert all(each.permit or each.object or each.actor for each in _written(opened))
    try:
        text = samples.STRANGER.sign(opened)
    except Malformed:  # over the limit of a document's size
        assert len(canonical.encode(opened)) > grammar.MAX_DOCUMENT_BYTES
        return
    ring = samples.KeyRing([samples.STRANGER.verify_key])
    assert open_signed(type(opened), text, ring).document == opened


@pytest.mark.parametrize("role", [*Role, "intake", "link", "core"])
def test_a_person_of_the_longest_name_fits_behind_every_role(role: str) -> None:
    person = "p" * MAX_PERSON
    assert record(actor=Caller(str(role), person, "voucher").actor).actor == f"{role}.{person}"
    with pytest.raises(Ungrammatical, match="longer than 48"):
        check_person(person + "p", "a person")
    with pytest.raises(CloisterError):
        Caller(str(role), UNKNOWN, "signature")


@given(st.from_regex(grammar.PERMIT, fullmatch=True), st.from_regex(grammar.instruction_id(Kind), fullmatch=True))
def test_the_grammar_of_records_is_the_documents(permit: str, instruction: str) -> None:
    assert record(permit=permit, object=instruction)
    run, round_, kind, attempt = instruction.split("/")
    assert re.fullmatch(grammar.IDENTIFIER, run) and kind in list(Kind) and int(round_) >= 0 and int(attempt) > 0
