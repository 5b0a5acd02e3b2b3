"""What nobody should sign: permits that could never be used, and orders that their permit does not cover."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediator.admission import check_order
from mediator.analysis import LOCAL
from mediator.canonical import from_plain, print_time
from mediator.errors import Code
from mediator.permit import compile_permit, open_permit, schema_sha256
from mediator.signatures import Signed
from mediator.terms import STRATEGIES, is_placeholder, outside, unaddressed, ungrantable, unorderable
from mediator.types import DataPermit, Kind, MetricSpec, Person, RunOrder, SiteDatasets
from tests.mediator.analyses import RULES
from tests.mediator.samples import (
    COMMITTEE,
    COMMITTEE_RING,
    DAY,
    NOW,
    OTHER_IMAGE,
    OTHER_VERSION,
    RESEARCHER,
    SITE,
    STRANGER,
    VERSION,
    acceptance,
    order,
    permit,
    signed_order,
)

TEMPLATES = sorted((Path(__file__).parents[2] / "node" / "kit" / "templates").glob("*/permit.json"))
ZEROS = "0" * 64
NOBODY = Person("researcher-2", "institute-1", ZEROS)


def reasons_of(document: DataPermit) -> list[str]:
    return [str(reason) for reason in ungrantable(document, COMMITTEE.key_id, NOW)]


def asked(**changes: Any) -> RunOrder:
    return order(**{"strategy": "fedavg", **changes})


def refused(document: RunOrder, under: DataPermit | None = None) -> list[str]:
    return [str(reason) for reason in unorderable(document, under or permit(), RESEARCHER.key_id, NOW)]


def test_a_permit_that_can_be_used_is_granted_and_an_order_under_it_too() -> None:
    assert reasons_of(permit()) == [] and refused(asked()) == []


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"issuer": STRANGER.key_id}, f"untrusted_key: issuer is not the id of the key that signs, {COMMITTEE.key_id}"),
    ({"issuer": "0" * 32}, "malformed: issuer is a placeholder"),
    ({"purpose": "say here what for"}, "malformed: purpose is a placeholder"),
    ({"purpose": ""}, "malformed: purpose is a placeholder"),
    ({"legal_basis": "  "}, "malformed: legal_basis is a placeholder"),
    ({"persons": (*permit().persons, NOBODY)}, "malformed: public_key of person 2 is a placeholder"),
    ({"images": (f"sha256:{ZEROS}",)}, "malformed: image 1 is a placeholder"),
    ({"datasets": (SiteDatasets(SITE, (VERSION, f"sha256:{ZEROS}")),)},
     f"malformed: a version of {SITE} is a placeholder"),
    ({"expires": NOW}, "permit_expired: expired 2026-11-22T12:00:00Z"),
    ({"persons": ()}, "malformed: persons is empty"),
    ({"images": ()}, "malformed: images is empty"),
    ({"kinds": ()}, "malformed: kinds is empty"),
    ({"datasets": ()}, "malformed: datasets is empty"),
    ({"datasets": (SiteDatasets(SITE, ()),)}, f"dataset_missing: {SITE} has no version"),
    ({"datasets": (SiteDatasets(SITE, (VERSION, VERSION)),)}, f"document_conflict: version {VERSION} is named twice"),
    ({"datasets": (SiteDatasets(SITE, (VERSION,)), SiteDatasets("b", (VERSION,)))},
     f"document_conflict: version {VERSION} is named twice"),
    ({"tensors": ()}, "tensor_missing: tensors is empty, and a model is trained or evaluated"),
    ({"metrics": {"evaluate": permit().metrics["evaluate"]}},
     "metric_missing: train has no count num-examples, by which a hub weighs"),
    ({"metrics": {**permit().metrics, "evaluate": (MetricSpec("num-examples", "value", 0, 1e6, 0),)}},
     "metric_missing: evaluate has no count num-examples, by which a hub weighs"),
    ({"maximum_rounds": 0}, "rounds_exhausted: maximum_rounds lets no round through"),
    ({"byte_budget": 8191}, "bytes_exhausted: byte_budget is under 14376, what one task may weigh"),
    ({"conditions": ("trust-us",)}, "condition_unenforceable: condition number 1 is not one this node knows"),
    ({"kinds": (Kind.ANALYSE,)}, "condition_unenforceable: analyses without rules, or rules without analyses"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "reason"), WRONG, ids=[reason for _, reason in WRONG])
def test_a_permit_that_nobody_could_use_is_not_signed(changes: dict[str, Any], reason: str) -> None:
    assert reason in reasons_of(permit(**changes))


def zeros(plain: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where in a template's draft a placeholder of zeros stands."""
    if isinstance(plain, dict | list):
        for name, below in plain.items() if isinstance(plain, dict) else enumerate(plain):
            yield from zeros(below, (*path, name))
    elif isinstance(plain, str) and len(plain) > 8 and not plain.removeprefix("sha256:").strip("0"):
        yield path


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.parent.name)
def test_every_placeholder_of_every_template_is_named_and_filled_in_it_is_granted(template: Path) -> None:
    text = template.read_text().replace("@NAME@", "x").replace("@TODAY@", "2026-11-22T00:00:00Z")
    draft = json.loads(text.replace("@EXPIRES@", "2027-11-22T00:00:00Z"))
    said = reasons_of(from_plain(DataPermit, draft))
    assert len([line for line in said if "placeholder" in line]) == len(list(zeros(draft))) + 4
    for text, word in ((ZEROS, "1" * 64), ("0" * 32, COMMITTEE.key_id), ("say here ", ""), ("your", "a")):
        draft = json.loads(json.dumps(draft).replace(text, word))
    draft["datasets"][0]["versions"] = [VERSION]
    assert reasons_of(from_plain(DataPermit, draft)) == []


@given(st.sampled_from(["", "sha256:"]), st.integers(min_value=0, max_value=80), st.integers(0, 79), st.booleans())
def test_zeros_are_a_placeholder_and_one_other_digit_makes_a_name(
    prefix: str, length: int, at: int, mark: bool
) -> None:
    digits = "0" * length
    if mark and length:
        digits = digits[: at % length] + "a" + digits[at % length + 1 :]
    assert is_placeholder(prefix + digits) is ("a" not in digits)


ASKED: list[tuple[dict[str, Any], str]] = [
    ({"rounds": 99}, "rounds_exhausted: more than 3 rounds"),
    ({"sites": (SITE, "nowhere", "elsewhere")}, "site_not_named: the permit covers no data of elsewhere, nowhere"),
    ({"sites": ()}, "run_order_mismatch: an order names its sites, each once"),
    ({"sites": (SITE, SITE)}, "run_order_mismatch: an order names its sites, each once"),
    ({"image": OTHER_IMAGE}, "image_not_permitted: the permit does not name this image"),
    ({"image": f"sha256:{ZEROS}"}, "image_not_permitted: the permit does not name this image"),
    ({"schema_sha256": ZEROS}, "run_order_mismatch: for another tensor schema"),
    ({"permit_version": 1}, "run_order_mismatch: for another permit or version"),
    ({"config": {"epochs": 6}}, "config_not_permitted: epochs is not what the permit allows"),
    ({"config": {"code": "x"}}, "config_not_permitted: 1 keys that the permit does not name"),
    ({"strategy": "FedAvg"}, f"run_order_mismatch: the strategy is not one of fedavg, {LOCAL}"),
    ({"strategy": LOCAL, "rounds": 1}, "kind_not_permitted: the permit does not allow analyse"),
    ({"strategy": LOCAL}, "run_order_mismatch: an analysis has one round"),
    ({"expires": NOW}, f"run_order_expired: expired {print_time(NOW)}"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "reason"), ASKED, ids=[reason for _, reason in ASKED])
def test_an_order_that_every_site_or_the_hub_would_refuse_is_not_signed(changes: dict[str, Any], reason: str) -> None:
    assert reason in refused(asked(**changes))


def test_an_order_is_signed_by_a_person_of_a_permit_that_holds() -> None:
    strangers = unorderable(asked(), permit(), STRANGER.key_id, NOW)
    assert [reason.code for reason in strangers] == [Code.PERSON_NOT_NAMED]
    over = permit(expires=NOW)
    assert [reason.code for reason in unorderable(asked(), over, RESEARCHER.key_id, NOW)] == [Code.PERMIT_EXPIRED]
    late = permit(not_before=NOW + 20 * DAY)
    early = unorderable(asked(), late, RESEARCHER.key_id, NOW)
    assert [reason.code for reason in early] == [Code.RUN_ORDER_EXPIRED]
    assert early[0].detail.startswith("the order is over before the permit begins, ")
    # an order ends with its permit: over with it, it is no fault of its own
    ended = unorderable(asked(expires=NOW), over, RESEARCHER.key_id, NOW)
    assert [reason.code for reason in ended] == [Code.PERMIT_EXPIRED]


def test_a_permit_for_analyses_alone_needs_no_model_and_takes_local_orders_alone() -> None:
    rules = replace(RULES, threshold=10)
    granted = permit(kinds=(Kind.ANALYSE,), analysis=rules, metrics={}, tensors=())
    assert reasons_of(granted) == []
    schema = signed_permit_of(granted).document
    local = replace(asked(strategy=LOCAL, rounds=1, config={}), schema_sha256=_schema(schema))
    assert refused(local, granted) == []
    assert "kind_not_permitted: the permit does not allow train, evaluate" in refused(
        replace(local, strategy="fedavg"), granted
    )


def signed_permit_of(document: DataPermit) -> Signed[DataPermit]:
    return open_permit(COMMITTEE.sign(document), COMMITTEE_RING)


def _schema(document: DataPermit) -> str:
    return schema_sha256(document.tensors)


texts = st.sampled_from(["", "say here x", "lesions", "0", "0" * 64])
digests = st.sampled_from([f"sha256:{ZEROS}", VERSION, OTHER_VERSION, OTHER_IMAGE])
drafts = st.builds(
    lambda **changes: {name: value for name, value in changes.items() if value is not None},
    issuer=st.sampled_from([None, COMMITTEE.key_id, STRANGER.key_id, "0" * 32]),
    purpose=st.none() | texts,
    expires=st.none() | st.sampled_from([NOW, NOW + timedelta(seconds=1)]),
    images=st.none() | st.lists(digests, max_size=2).map(tuple),
    datasets=st.none() | st.lists(digests, max_size=2).map(lambda some: (SiteDatasets(SITE, tuple(some)),)),
    tensors=st.sampled_from([None, ()]),
    maximum_rounds=st.none() | st.integers(0, 2),
    byte_budget=st.none() | st.integers(0, 1 << 15),
    conditions=st.sampled_from([None, ("differential-privacy",), ("no-network",), ("x",)]),
)


@given(drafts)
def test_what_is_signed_can_be_opened_and_accepted_by_every_site_it_names(changes: dict[str, Any]) -> None:
    granted = permit(**changes)
    if reasons_of(granted):
        return
    signed = signed_permit_of(granted)
    for entry in granted.datasets:
        enforced = compile_permit(signed, acceptance(signed, site=entry.site))
        assert enforced.versions and enforced.terms.images and enforced.terms.maximum_rounds >= 1 and enforced.persons


@given(
    st.integers(1, 5),
    st.lists(st.sampled_from([SITE, "hospital-b", "nowhere"]), max_size=3).map(tuple),
    st.sampled_from([*STRATEGIES, LOCAL, "FedAvg"]),
    st.dictionaries(st.sampled_from(["epochs", "learning-rate", "x"]), st.sampled_from([1, 0.5, 7, True]), max_size=2),
)
def test_an_order_that_may_be_signed_is_refused_by_no_site_it_names(
    rounds: int, sites: tuple[str, ...], strategy: str, config: dict[str, Any]
) -> None:
    document = asked(rounds=rounds, sites=sites, strategy=strategy, config=config)
    if refused(document):
        return
    signed = signed_permit_of(permit())
    assert outside(document, permit()) == [] and unaddressed(document, permit()) == [] and document.sites
    for site in document.sites:
        enforced = compile_permit(signed, acceptance(signed, site=site))
        assert check_order(signed_order(document), enforced, NOW) == []
