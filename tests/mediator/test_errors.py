from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mediator import errors
from mediator.errors import (
    EXCEPTIONS,
    EXIT_REASONS,
    CloisterError,
    Code,
    Denied,
    Ended,
    HubCode,
    Reason,
    exit_code_of,
    hub_code,
    plain_hub_code,
)
from mediator.exits import PLAIN, RAISED, TOLD_PER_RUN, told

EXIT_CODES = {
    "internal_error": 1, "usage": 2, "malformed": 2, "denied": 3, "ended": 3, "integrity_broken": 4, "not_now": 5,
}  # fmt: skip


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


def test_an_end_is_no_refusal_and_leaves_with_its_exit_code() -> None:
    ended = Ended(Reason(Code.TIME_LIMIT, "no DONE within 60 s"))
    assert not isinstance(ended, Denied) and exit_code_of(ended) == exit_code_of(Denied(ended.reason))
    assert (str(ended), ended.code) == ("time_limit: no DONE within 60 s", "ended")


RULES = "missing not_a_folder too_many_files unknown_name not_a_regular_file hard_link too_large unreadable out_full"
# what a hub learns in plain words, written out: everything not here is about the permit
HEARD = {
    HubCode.PAUSED: "hospital_paused",
    HubCode.INTERNAL: "internal set_aside",
    HubCode.REFUSED_BUDGET: "attempts_exhausted rounds_exhausted bytes_exhausted epsilon_exhausted",
    HubCode.JOB_FAILED: "job_failed out_of_memory time_limit stopped "
    + " ".join(code.value for code in RAISED.values()),
    HubCode.NOT_READY: """clock_went_back log_set_back canary_failed dataset_missing mount_not_permitted spec_expired
        job_unknown not_sealed gpu_unavailable outside_schedule too_many_open run_order_missing""",
    HubCode.REFUSED_INSTRUCTION: """malformed unsupported_version kind_not_permitted config_not_permitted
        model_not_permitted model_mismatch instruction_misaddressed instruction_expired instruction_replayed
        round_already_served round_out_of_range too_many site_not_named run_order_expired
        run_order_mismatch epoch_over""",
    HubCode.REFUSED_OUTPUT: """contract_violation header_too_large header_malformed metadata_not_permitted
        tensor_not_permitted tensor_missing tensor_shape tensor_dtype tensor_offsets trailing_bytes not_finite
        metrics_too_large metrics_malformed metric_not_permitted metric_missing metric_out_of_range
        file_not_permitted file_missing """
    + " count_below_threshold differencing dominance identifier_found table_not_permitted "
    + " ".join(f"contract_{rule}" for rule in RULES.split()),
}
# and the exit reasons that have a word of their own
OF_THEIR_OWN = (
    {"out_of_memory", "time_limit"}
    | {code.value for code in RAISED.values()}
    | (
        set(HEARD[HubCode.REFUSED_OUTPUT].split())
        - {"count_below_threshold", "differencing", "dominance", "identifier_found", "table_not_permitted"}
    )
)


def test_what_the_hub_hears_for_every_code_in_plain_words() -> None:
    expected = {Code(code): outward for outward, codes in HEARD.items() for code in codes.split()}
    assert {code: plain_hub_code(code) for code in Code} == {
        code: expected.get(code, HubCode.REFUSED_PERMIT) for code in Code
    }
    words = {*HEARD, HubCode.REFUSED_PERMIT}
    assert words == PLAIN and len(PLAIN) == 8


def test_an_exit_reason_has_a_word_of_its_own_and_nothing_else_has() -> None:
    for code in Code:
        own = hub_code(code)
        assert own.value == code.value if code.value in OF_THEIR_OWN else own is plain_hub_code(code), code
    assert {word.value for word in set(HubCode) - PLAIN} == OF_THEIR_OWN


def test_what_an_answer_can_carry_is_what_the_threat_model_says() -> None:
    """69 words are 6.1 bits; a run is told 32 of them at a site, and plain words (3 bits) after that."""
    assert len(HubCode) == 69 and len(PLAIN) == 8 and TOLD_PER_RUN == 32
    text = (Path(__file__).resolve().parents[2] / "deploy" / "docs" / "threat-model.md").read_text("utf-8")
    assert "one of 69 words (6.1 bits)" in text and "32 such answers" in text


def test_a_hub_that_asks_again_and_again_hears_one_word_of_whatever_a_job_does() -> None:
    assert told(Code.RAISED_VALUE_ERROR, TOLD_PER_RUN - 1) is HubCode.RAISED_VALUE_ERROR
    assert told(Code.RAISED_VALUE_ERROR, TOLD_PER_RUN) is HubCode.JOB_FAILED
    assert {told(code, TOLD_PER_RUN) for code in (*EXIT_REASONS, Code.COUNT_BELOW_THRESHOLD)} == {HubCode.JOB_FAILED}
    assert told(Code.PERMIT_REVOKED, TOLD_PER_RUN) is HubCode.REFUSED_PERMIT
    assert told(Code.COUNT_BELOW_THRESHOLD, 0) is HubCode.REFUSED_OUTPUT


def test_every_exception_class_has_one_code() -> None:
    assert len(set(RAISED.values())) == len(EXCEPTIONS) + 1
    assert {code for code in Code if code.name.startswith("RAISED_")} == set(RAISED.values())
