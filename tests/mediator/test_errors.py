from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from mediator import errors
from mediator.errors import CloisterError, Code, Denied, HubCode, Reason, exit_code_of, hub_code

EXIT_CODES = {"internal_error": 1, "usage": 2, "malformed": 2, "denied": 3, "integrity_broken": 4, "not_now": 5}


def _family(cls: type[CloisterError]) -> Iterator[type[CloisterError]]:
    yield cls
    for child in cls.__subclasses__():
        if child.__module__ == "mediator.errors":
            yield from _family(child)


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    lines = re.findall(r"(\w+) +([a-z_]+) +(\d) ", errors.__doc__ or "")
    documented = {name: (code, int(number)) for name, code, number in lines}
    assert documented == {cls.__name__: (cls.code, cls.exit_code) for cls in _family(CloisterError)}


def test_every_class_has_a_code_of_its_own_and_an_exit_code() -> None:
    family = list(_family(CloisterError))
    assert len({cls.code for cls in family}) == len(family)
    assert {cls.exit_code for cls in family} == {1, 2, 3, 4, 5}
    for code, number in EXIT_CODES.items():
        assert next(cls for cls in family if cls.code == code).exit_code == number


def test_an_unknown_exception_is_our_bug() -> None:
    assert exit_code_of(RuntimeError("a patient's name")) == 1
    assert exit_code_of(Denied(Reason(Code.PERMIT_EXPIRED))) == 3


def test_a_refusal_without_a_reason_is_impossible() -> None:
    with pytest.raises(ValueError, match="at least one reason"):
        Denied([])


def test_a_refusal_tells_all_reasons_and_shows_the_first_first() -> None:
    denied = Denied([Reason(Code.PERMIT_EXPIRED, "expired"), Reason(Code.HOSPITAL_PAUSED)])
    assert str(denied) == "permit_expired: expired; hospital_paused"
    assert denied.hub_code is HubCode.REFUSED_PERMIT


# what a hub learns, written out: everything not here is about the permit
HEARD = {
    HubCode.PAUSED: "hospital_paused",
    HubCode.REFUSED_BUDGET: "rounds_exhausted bytes_exhausted epsilon_exhausted",
    HubCode.JOB_FAILED: "job_failed out_of_memory time_limit stopped",
    HubCode.NOT_READY: """clock_went_back canary_failed dataset_missing mount_not_permitted spec_expired job_unknown
        not_sealed""",
    HubCode.REFUSED_INSTRUCTION: """malformed unsupported_version kind_not_permitted config_not_permitted
        model_not_permitted model_mismatch instruction_misaddressed instruction_expired instruction_replayed
        round_already_served round_out_of_range site_not_named run_order_missing run_order_expired
        run_order_mismatch""",
    HubCode.REFUSED_OUTPUT: """contract_violation header_too_large header_malformed metadata_not_permitted
        tensor_not_permitted tensor_missing tensor_shape tensor_dtype tensor_offsets trailing_bytes not_finite
        metrics_too_large metrics_malformed metric_not_permitted metric_missing metric_out_of_range
        count_below_threshold file_not_permitted file_missing""",
}


def test_what_the_hub_hears_for_every_code() -> None:
    expected = {Code(code): outward for outward, codes in HEARD.items() for code in codes.split()}
    assert {code: hub_code(code) for code in Code} == {
        code: expected.get(code, HubCode.REFUSED_PERMIT) for code in Code
    }
