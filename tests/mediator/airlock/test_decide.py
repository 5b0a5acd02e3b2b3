"""Gate 2 for files, attacked: what a hostile analysis would write, and what becomes of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediator import canonical
from mediator.airlock.decide import CheckedFile, DisclosureRecord, check
from mediator.errors import Code, Denied
from mediator.types import OutputFile
from tests.mediator.analyses import (
    FREQUENCY,
    MAGNITUDE,
    PSEUDONYM,
    SUMMARY,
    declared,
    frequency,
    magnitude,
    outputs,
    request,
    summary,
)


def one(entry: Mapping[str, Any], raw: bytes, **changes: Any) -> CheckedFile:
    (found,) = check(request([entry], {entry["name"]: raw}, **changes))
    return found


def minded(found: CheckedFile) -> list[str]:
    return [finding.rule for finding in found.record.findings if finding.result == "fail"]


def test_every_file_that_holds_the_rules_gets_a_record_and_our_own_encoding() -> None:
    found = check(
        request(
            [frequency(), magnitude(), summary()],
            {"a.csv": FREQUENCY.replace(b"\n", b"\r\n"), "b.csv": MAGNITUDE, "c.json": SUMMARY},
        )
    )
    assert [each.record.outcome for each in found] == ["pass", "pass", "review"]
    assert found[0].content == FREQUENCY
    assert found[1].content == b"sex,patients,volume\nf,75,1000\nm,75,900\n", "evidence does not leave"
    assert json.loads(found[2].content) == json.loads(SUMMARY)
    for each in found:
        record = each.record
        assert record.sha256 == hashlib.sha256(each.content).hexdigest() and record.size_bytes == len(each.content)
        raw = canonical.encode(record)
        assert canonical.decode(DisclosureRecord, raw) == record, "a program can read it back"
        assert each.code is None
    assert [finding.rule for finding in found[1].record.findings if finding.rule.startswith("dominance")] == [
        "dominance_nk", "dominance_p"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "rule", "code"),
    [
        (FREQUENCY.replace(b"m,young,15", b"m,young,9"), "threshold", Code.COUNT_BELOW_THRESHOLD),
        (FREQUENCY.replace(b"m,young,15", b"m,young,0"), "threshold", Code.COUNT_BELOW_THRESHOLD),
        (FREQUENCY + b"total,total,150\n" * 2, "labels", Code.TABLE_NOT_PERMITTED),
        (FREQUENCY.replace(b"m,young,15\n", b"") + b"total,total,145\n", "differencing", Code.DIFFERENCING),
        (FREQUENCY.replace(b"m,young,15", b"m,young,") + b"total,young,35\n", "differencing", Code.DIFFERENCING),
        (FREQUENCY.replace(b"15", b"150"), "population", Code.TABLE_NOT_PERMITTED),
        (FREQUENCY + b"total,total,151\n", "population", Code.TABLE_NOT_PERMITTED),
        (FREQUENCY.replace(b"m,young", b"m,Jane Doe"), "labels", Code.TABLE_NOT_PERMITTED),
        (FREQUENCY.replace(b"m,young", b"=1+1,young"), "formulas", Code.TABLE_NOT_PERMITTED),
        (FREQUENCY.replace(b"15", b"@SUM(1)"), "formulas", Code.TABLE_NOT_PERMITTED),
        (FREQUENCY.replace(b"15", b"15.5"), "numbers", Code.TABLE_NOT_PERMITTED),
        (FREQUENCY.replace(b"sex,age,patients", b"sex,age,patients,note"), "shape", Code.TABLE_NOT_PERMITTED),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 100, "plain_text", Code.FILE_NOT_PERMITTED),
        (FREQUENCY + b"PK\x05\x06" + b"\x00" * 18, "plain_text", Code.FILE_NOT_PERMITTED),
        (b"sex,age,patients\n" + b"f,young,20\n" * 5000, "shape", Code.TABLE_NOT_PERMITTED),
        (f"sex,age,{PSEUDONYM[:20]}\nf,young,20\n".encode(), "identifiers", Code.IDENTIFIER_FOUND),
        (f"sex,age,patients\nf,{PSEUDONYM},20\n".encode(), "identifiers", Code.IDENTIFIER_FOUND),
        (f"sex,age,patients\nf,x{PSEUDONYM[:12].upper()}y,20\n".encode(), "identifiers", Code.IDENTIFIER_FOUND),
        (b"sex,age,patients\nf,1.2.840.10008.5.1.4,20\n", "identifiers", Code.IDENTIFIER_FOUND),
    ],
)  # fmt: skip
def test_a_frequency_table_that_tells_of_persons_is_refused_by_rule(raw: bytes, rule: str, code: Code) -> None:
    found = one(frequency(), raw)
    assert rule in minded(found) and found.code is code
    assert (found.content, found.record.sha256, found.record.size_bytes) == (b"", "", 0)
    assert found.record.outcome == "fail"


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        (b"m,75,900,700,150", "dominance_nk"), (b"m,75,900,410,400", "dominance_nk"),
        (b"m,75,900,500,396", "dominance_p"), (b"m,75,900,50,60", "dominance_nk"), (b"m,75,900,-5,-6", "dominance_nk"),
        (b"m,75,0,0,0", "dominance_nk"), (b"m,75,90,80,70", "dominance_nk"),
        (b"m,9,900,60,50", "threshold"), (b"m,75,900.123,60,50", "numbers"),
    ],
)  # fmt: skip
def test_a_sum_that_few_people_make_up_is_refused(row: bytes, rule: str) -> None:
    found = one(magnitude(), b"sex,patients,volume,top,second\nf,75,1000,80,70\n" + row + b"\n")
    assert rule in minded(found) and not found.content


@given(st.lists(st.integers(1, 500), min_size=3, max_size=8))
def test_a_sum_passes_exactly_when_no_contributor_can_guess_another_from_it(held: list[int]) -> None:
    """The oracle: each contributor takes their own off the sum, and what is left bounds everybody else (p %)."""
    total, largest = sum(held), sorted(held, reverse=True)
    guessed = any(
        10 * ((total - held[mine]) - held[theirs]) < held[theirs]
        for mine in range(len(held))
        for theirs in range(len(held))
        if mine != theirs
    )
    row = f"f,75,{total},{largest[0]},{largest[1]}\n".encode()
    found = one(magnitude(), b"sex,patients,volume,top,second\n" + row)
    assert ("dominance_p" in minded(found)) is guessed
    assert ("dominance_nk" in minded(found)) is (10 * (largest[0] + largest[1]) >= 9 * total)


def test_too_few_contributors_for_the_rule_are_no_evidence() -> None:
    entry = magnitude() | {"largest": ["top"]}
    assert "dominance_nk" in minded(one(entry, b"sex,patients,volume,top\nf,75,1000,80\n"))


def test_a_table_of_patients_is_refused_however_it_counts_them() -> None:
    """A row for each of 30 patients: no label tells them apart, and 30 rows of ten patients are 300 patients."""
    rows = b"".join(b"%d,%d\n" % (10, volume) for volume in range(100, 130))
    assert "labels" in minded(one(declared("a.csv", "estimates"), b"patients,volume\n" + rows))
    entry = declared("a.csv", "estimates", labels=["age"])
    found = one(entry, b"age,patients,volume\nyoung,90,1\nmiddle,90,2\nold,90,3\n")
    assert minded(found) == ["population"]
    wide = ",".join(f"v_{number}" for number in range(11)), ",".join("1.5" for _ in range(11))
    assert "freedom" in minded(one(declared("a.csv", "estimates"), f"patients,{wide[0]}\n20,{wide[1]}\n".encode()))


@pytest.mark.parametrize("name", ["min_age", "age_max", "largest", "range"])
def test_the_smallest_and_the_largest_value_are_somebodys(name: str) -> None:
    assert "extremes" in minded(one(summary(), json.dumps({"patients": 150, name: 12}).encode()))


@pytest.mark.parametrize("name", ["Patients", "a b", "p" * 25, "p1234", "=a", "é"])
def test_a_column_whose_name_could_carry_text_is_refused(name: str) -> None:
    found = one(summary(), json.dumps({"patients": 150, name: 1}).encode())
    assert {"columns", "plain_text", "shape"} & set(minded(found))


def test_a_type_the_permit_does_not_name_is_refused() -> None:
    assert minded(one(summary(), SUMMARY, rules={"types": ("csv",)})) == ["plain_text"]


def test_a_grand_total_in_one_file_uncovers_what_another_hides() -> None:
    hides = FREQUENCY.replace(b"m,young,15", b"m,young,")
    assert not minded(one(frequency(), hides))
    found = check(request([frequency(), summary()], {"a.csv": hides, "c.json": SUMMARY}))
    assert [minded(each) for each in found] == [["differencing"], []]


@pytest.mark.parametrize(
    ("left", "code"),
    [
        ({}, Code.FILE_MISSING),
        ({"outputs.json": b"{"}, Code.FILE_NOT_PERMITTED),
        ({"outputs.json": b'{"contract": 2, "files": []}'}, Code.FILE_NOT_PERMITTED),
        ({"outputs.json": outputs()}, Code.FILE_NOT_PERMITTED),
        ({"outputs.json": outputs(frequency())}, Code.FILE_MISSING),
        ({"outputs.json": outputs(frequency()), "a.csv": FREQUENCY, "z.csv": b"x"}, Code.FILE_NOT_PERMITTED),
        ({"outputs.json": outputs(frequency(), frequency()), "a.csv": FREQUENCY}, Code.FILE_NOT_PERMITTED),
        ({"outputs.json": outputs(frequency("../a.csv"))}, Code.FILE_NOT_PERMITTED),
        ({"outputs.json": outputs(frequency() | {"note": "x"}), "a.csv": FREQUENCY}, Code.FILE_NOT_PERMITTED),
        ({"outputs.json": outputs(frequency() | {"type": "png"}), "a.csv": FREQUENCY}, Code.FILE_NOT_PERMITTED),
        ({"outputs.json": outputs(*(frequency(f"a{n}.csv") for n in "12345"))}, Code.FILE_NOT_PERMITTED),
        ({"outputs.json": outputs(frequency()) + b" " * 20_000, "a.csv": FREQUENCY}, Code.FILE_NOT_PERMITTED),
        ({"outputs.json": outputs(frequency()), "a.csv": b"x" * 100_001}, Code.BYTES_EXHAUSTED),
    ],
)  # fmt: skip
def test_an_output_that_is_not_what_it_declares_is_none(left: dict[str, bytes], code: Code) -> None:
    files = [OutputFile(name, raw) for name, raw in left.items()]
    with pytest.raises(Denied) as denied:
        check(replace(request([], {}), files=files))
    assert denied.value.reasons[0].code is code
    assert all("a.csv" not in reason.detail and "note" not in reason.detail for reason in denied.value.reasons)


def test_a_record_names_no_value() -> None:
    found = one(frequency(), FREQUENCY.replace(b"m,young,15", b"m,Jane Doe,777"))
    assert b"Jane" not in canonical.encode(found.record) and b"777" not in canonical.encode(found.record)
