"""The report's verdict: exit 0 only when every promise was kept."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from deploy.demo import table
from deploy.demo.report import REFUSALS, Figures, Report, Round, read_rounds

SITES = ("aster", "birch", "cedar")


def good() -> Report:
    hospitals = {
        site: Figures(
            name=site, kind="bright spots", good_in=90, good_published=90, troubles=4, troubles_found=4,
            auc_at_home=0.97, planted=310, studies_in=120, studies_published=110, instances=660, held_out=40,
            excluded={"image_unreadable": 7, "not_an_image": 3}, bytes_out=1_234_567, auc_local_only=0.71,
            audit_dir=f"/work/{site}/audit", audit_key=f"/work/{site}/audit-keys.txt",
            witness_file=f"/work/{site}/witness.jsonl", audit_ok=True, audit_records=99,
            quarantine_files=0, quarantine_destroyed_sequence=17,
        )
        for site in SITES
    }  # fmt: skip
    report = Report(rounds_ordered=4, hospitals=hospitals)
    report.rounds = [
        Round(number, 9.0, 0.7 - number / 10, 0.5 + number * 0.115, {site: {"auc": 0.5, "loss": 0.7} for site in SITES})
        for number in range(5)
    ]
    report.auc_of_statistics = {"mean": 0.53, "variance": 0.55}
    report.tested = {site: [0.5, 0.6, 0.65, 0.7, 0.71] for site in SITES}
    report.tested = {"together": [0.5, 0.85, 0.91, 0.94, 0.96]} | report.tested
    report.search.planted, report.search.found, report.search.found_in_source = 930, 0, 930
    report.refusals = dict.fromkeys(REFUSALS, True)
    report.evidence = {name: {"site": "aster", "audit_sequence": 5, "code": "x"} for name in REFUSALS}
    return report


def test_all_is_well() -> None:
    report = good()
    assert report.failures() == []
    assert report.exit_code() == 0
    assert report.plain()["seconds_per_round"] == 9.0
    assert report.plain()["rounds"] == 4


def test_the_report_names_what_was_promised() -> None:
    plain = good().plain()
    promised = {
        "seconds_total", "rounds", "seconds_per_round", "auc_global", "auc_untrained", "nodes", "refusals",
        "refusal_evidence", "identifiers_file", "search_roots", "planted_identifiers", "planted_found",
        "hub_ingress", "outsider",
    }  # fmt: skip
    assert promised <= plain.keys()
    of_a_node = {
        "name", "studies_in", "studies_published", "excluded", "bytes_out", "auc_local_only", "audit_dir",
        "audit_key", "witness_file", "audit_ok",
    }  # fmt: skip
    assert all(of_a_node <= node.keys() for node in plain["nodes"])
    assert json.loads(json.dumps(plain)) == plain


def spoil(report: Report, what: str) -> None:
    hospital = report.hospitals["birch"]
    match what:
        case "weak model":
            report.rounds[-1].auc = 0.92
        case "weak on all":
            report.tested["together"] = [0.5, 0.7, 0.8, 0.9, 0.92]
        case "a round that is no better":
            report.rounds[2].auc = report.rounds[1].auc
        case "worse than the round before":
            report.rounds[2].auc, report.rounds[3].auc = 0.98, 0.95
        case "not tested on all":
            report.tested = {}
        case "good alone":
            hospital.auc_local_only = 0.81
        case "gains nothing":
            report.tested["together"][-1] = hospital.auc_local_only = 0.71
        case "a good study lost":
            hospital.good_published = 89
        case "a study out of nowhere":
            hospital.good_published = 91
        case "no good study at all":
            hospital.good_in = hospital.good_published = 0
        case "a trouble not found":
            hospital.troubles_found = 3
        case "no trouble planted":
            hospital.troubles = hospital.troubles_found = 0
        case "no auc at all":
            report.rounds[-1].auc = None
        case "untrained model knows":
            report.rounds[0].auc = 0.66
        case "no untrained evaluation":
            del report.rounds[0]
        case "a round short":
            report.rounds.pop()
        case "log broken":
            hospital.audit_ok = False
        case "identifier got out":
            report.search.found = 1
        case "search did not run":
            report.search.found = None
        case "search finds nothing":
            report.search.found_in_source = 0
        case "quarantine left":
            hospital.quarantine_files = 1
        case "quarantine unknown":
            hospital.quarantine_files = None
        case "destruction not audited":
            hospital.quarantine_destroyed_sequence = None
        case "too few held out":
            hospital.held_out = 1
        case "too few planted":
            hospital.planted = 299
        case "hub reads the committee":
            report.committee_closed_to_hub = False
        case "too easy":
            report.auc_of_statistics["mean"] = 0.60
        case "no local figure":
            hospital.auc_local_only = None
        case _:
            report.refusals[what] = False


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("weak model", 1), ("no auc at all", 1), ("untrained model knows", 1), ("no untrained evaluation", 1),
        ("a round short", 1), ("log broken", 4), ("identifier got out", 4), ("search did not run", 1),
        ("search finds nothing", 1), ("quarantine left", 1), ("quarantine unknown", 1), ("too few held out", 1),
        ("destruction not audited", 1), ("too few planted", 1), ("hub reads the committee", 1),
        ("no local figure", 1), ("too easy", 1), ("weak on all", 1), ("a round that is no better", 1),
        ("worse than the round before", 1), ("not tested on all", 1), ("good alone", 1), ("gains nothing", 1),
        ("a good study lost", 1), ("a study out of nowhere", 1), ("no good study at all", 1),
        ("a trouble not found", 1), ("no trouble planted", 1), *((name, 1) for name in REFUSALS),
    ],
)  # fmt: skip
def test_one_broken_promise_is_enough(what: str, code: int) -> None:
    report = good()
    spoil(report, what)
    assert report.exit_code() == code
    assert len(report.failures()) >= 1


def test_near_the_end_of_what_can_be_learnt_chance_may_go_down() -> None:
    report = good()
    for number, value in enumerate((0.98, 0.975, 0.972), 2):
        report.rounds[number].auc = value
    assert report.failures() == []


def test_an_empty_report_promises_nothing() -> None:
    report = Report(rounds_ordered=3, hospitals={site: Figures(site) for site in SITES})
    assert report.exit_code() != 0
    assert report.refusals == dict.fromkeys(REFUSALS, False)


def test_the_hubs_answer_becomes_rounds() -> None:
    answer: dict[str, Any] = {
        "run": "r", "state": "complete",
        "rounds": [
            {"round": 0, "seconds": 2.0, "train": {}, "evaluate": {"aster": {"auc": 0.5, "loss": 0.69}},
             "mean": {"auc": 0.5, "loss": 0.69}, "refusals": []},
            {"round": 1, "seconds": 9.5, "train": {}, "evaluate": {}, "mean": {}, "refusals": []},
        ],
    }  # fmt: skip
    untrained, first = read_rounds(answer)
    assert (untrained.number, untrained.auc, untrained.sites["aster"]["loss"]) == (0, 0.5, 0.69)
    assert (first.seconds, first.auc) == (9.5, None)


def test_the_tables_print_with_gaps_as_well_as_without() -> None:
    for report in (good(), Report(rounds_ordered=3, hospitals={site: Figures(site) for site in SITES})):
        out = io.StringIO()
        console = Console(file=out, width=120)
        for each in table.tables(report):
            console.print(each)
        for word in ("what went in", "what was learnt", "what left", "what was refused", *SITES):
            assert word in out.getvalue()


def test_reasons_stand_in_order_of_weight() -> None:
    assert table.reasons(Figures("x", excluded={"b_two": 2, "a_two": 2, "nine": 9})) == "9 nine, 2 a two, 2 b two"
    assert table.reasons(Figures("x")) == "none"


def test_each_steps_seconds_and_processor_seconds_are_told() -> None:
    report = good()
    report.phases, report.processor, report.seconds_total = (
        {"environment": 0.5, "training": 40.0},
        {"training": 61.25},
        44.0,
    )
    console = Console(file=io.StringIO(), width=120)
    console.print(table.time_taken(report))
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert ["environment", "0.5"] in lines and ["training", "40.0", "61.2"] in lines
    assert lines[-2][-2:] == ["44.0", "61.2"]
