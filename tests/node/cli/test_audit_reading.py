"""`cloister audit show`, `tail`, `search`, `export`, `prove` on logs on the disk, honest and changed."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from mediator.audit import RECORDS_PER_SEGMENT, Action, Verdict, encode_line, segment_name
from mediator.errors import UsageFault
from node.cli import main
from node.cli.auditor.log_folder import Log, LogLine, read_keys
from tests.mediator.samples import COMMITTEE, NOW, SITE, permit
from tests.mediator.test_audit import record
from tests.node.cli import audit_log

DIGEST = "ab" * 32
RECORDS = [
    record(1, action=Action.NODE_START, object=f"site/{SITE}", permit="", verdict=Verdict.DONE),
    record(2, action=Action.PERMIT_ACCEPT, object=f"document/{DIGEST}", verdict=Verdict.DONE,
           actor="data_steward.m.okafor"),
    record(3, action=Action.TASK_ADMIT),
    record(4, action=Action.RELEASE, object=f"run-1/2/train/1@{DIGEST}", verdict=Verdict.DONE),
    record(5, action=Action.QUARANTINE_DESTROY, object="ingest-1/12", permit="", verdict=Verdict.DONE),
    record(6, action=Action.TASK_ADMIT, object="run-2/1/train/1", permit="other@1", verdict=Verdict.REFUSED,
           code="permit_revoked", time=NOW + timedelta(days=1)),
    record(7, action=Action.PERMIT_END, object="run/run-2", permit="other@1", verdict=Verdict.REFUSED,
           code="permit_expired", time=NOW + timedelta(days=2)),
    record(8, action=Action.PAUSE, object=f"site/{SITE}", permit="", verdict=Verdict.DONE,
           actor="it_admin.unknown", time=NOW + timedelta(days=2)),
]  # fmt: skip


class Done(NamedTuple):
    code: object
    out: str
    err: str

    @property
    def numbers(self) -> list[int]:
        return [int(line.split("  ")[0]) for line in self.out.splitlines()]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    def call(*words: object) -> Done:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["cloister", "audit", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(ended.value.code, *capfd.readouterr())

    return call


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return audit_log.write(tmp_path / "copy", RECORDS, [5, 7], witnessed=5)


def test_every_record_is_a_line_in_words_and_how_far_it_is_proven_is_said(run: Callable[..., Done], log: Path) -> None:
    done = run("show", log)
    assert done.code == 0 and done.numbers == [1, 2, 3, 4, 5, 6, 7, 8]
    assert "m.okafor (data steward) accepted the permit by the document of SHA-256" in done.out
    assert f"as root id {DIGEST}, under permit lesions version 2" in done.out
    assert "7 of 8 records are covered by a signed checkpoint, and the hub has witnessed 5" in done.err
    assert "records after 7 are not covered yet" in done.err
    assert "not covered yet" not in run("show", log, "--last", 7).err


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ("--permit lesions", [3, 4, 2]), ("--permit other@1", [6, 7]), ("--permit other@2", []),
        ("--who m.okafor", [2]), ("--who it_admin", [8]), ("--who data_steward.m.okafor", [2]),
        ("--who core", [1, 3, 4, 5, 6, 7]), ("--action pause --action node_start", [1, 8]),
        ("--verdict refused", [6, 7]), ("--about left", [4]), ("--about deleted", [5]),
        ("--about permits", [2, 6, 7]), ("--about people", [2, 8]), ("--about refused", [6, 7]),
        ("--first 3 --last 5", [3, 4, 5]), ("--permit lesions --verdict done", [2, 4]),
        (f"--since {(NOW + timedelta(days=1)).date()} --until {(NOW + timedelta(days=1)).date()}", [6]),
        (f"--since {(NOW + timedelta(days=2)).date()}", [7, 8]),
        (f"--until {NOW.date()}", [1, 2, 3, 4, 5]),
    ],
)  # fmt: skip
def test_filters_leave_exactly_what_fits(run: Callable[..., Done], log: Path, words: str, numbers: list[int]) -> None:
    done = run("show", log, *words.split())
    assert (done.code, done.numbers) == (0, sorted(numbers))
    assert ("no record fits" in done.err) == (not numbers)


def test_what_was_named_wrongly_lists_what_there_is(run: Callable[..., Done], log: Path) -> None:
    assert "lesions@2, other@1" in run("show", log, "--permit", "lesson").err
    assert "core, m.okafor" not in run("show", log, "--who", "core").err
    assert "core, it_admin.unknown, m.okafor" in run("show", log, "--who", "okafor").err
    unknown = run("show", log, "--action", "explode")
    assert unknown.code == 2 and all(action.value in unknown.err for action in Action)
    wrong = run("show", log, "--since", "27.11.2026")
    assert wrong.code == 2 and "YYYY-MM-DD" in wrong.err


def test_a_project_is_its_permits(run: Callable[..., Done], log: Path, tmp_path: Path) -> None:
    granted = permit(permit="other", permit_version=1, supersedes=None)
    (tmp_path / "other.jws").write_text(COMMITTEE.sign(granted))
    words = ("show", log, "--permit-file", tmp_path / "other.jws", "--project")
    assert run(*words, granted.project).numbers == [6, 7]
    wrong = run(*words, "nothing")
    assert wrong.code == 2 and granted.project in wrong.err and wrong.out == ""


def test_search_finds_ids_and_words(run: Callable[..., Done], log: Path) -> None:
    assert run("search", DIGEST[:20], log).numbers == [2, 4]
    assert run("search", "REVOKED by the access", log).numbers == [6]
    assert run("search", "nothing-of-this-kind", log).numbers == []


def test_tail_shows_the_newest(run: Callable[..., Done], log: Path) -> None:
    assert run("tail", log, "--newest", 3).numbers == [6, 7, 8]
    assert run("tail", log).numbers == list(range(1, 9))
    done = run("tail", log, "--newest", 2, "--unverified")
    assert done.numbers == [7, 8] and "nothing was checked" in done.err


def test_proof_names_the_first_checkpoint_over_each_record(run: Callable[..., Done], log: Path) -> None:
    lines = run("show", log, "--proof").out.splitlines()
    assert [line.rpartition("  [")[2] for line in lines] == [
        *["checkpoint 5]"] * 5, *["checkpoint 7]"] * 2, "in no checkpoint yet]"
    ]  # fmt: skip
    told = [json.loads(line) for line in run("show", log, "--json").out.splitlines()]
    assert [each["checkpoint"] for each in told] == [5] * 5 + [7] * 2 + [None]
    assert told[1]["person"] == "m.okafor" and told[1]["role"] == "data_steward"


def test_a_changed_log_ends_with_4_and_nothing_calls_it_proven(run: Callable[..., Done], log: Path) -> None:
    segment = log / segment_name(1)
    for command in (["show"], ["tail"], ["search", "run"], ["export"]):
        segment.write_bytes(segment.read_bytes().replace(b'"permit_revoked"', b'"permit_expired"'))
        done = run(*command, log)
        assert done.code == 4 and "does not verify" in done.err and "log verifies" not in done.err, command
    done = run("prove", 3, log)
    assert done.code == 4 and done.out == ""


def test_a_log_without_its_keys_is_not_shown_as_if_it_were_checked(run: Callable[..., Done], log: Path) -> None:
    (log.parent / "audit-keys.txt").unlink()
    done = run("show", log)
    assert done.code == 2 and done.out == "" and "--unverified" in done.err
    assert "nothing was checked" in run("show", log, "--unverified").err


def test_the_export_forms_are_read_back(run: Callable[..., Done], log: Path) -> None:
    told = [json.loads(line) for line in run("export", log).out.splitlines()]
    rows = list(csv.DictReader(io.StringIO(run("export", log, "--form", "csv").out)))
    assert [int(row["sequence"]) for row in rows] == [each["sequence"] for each in told] == list(range(1, 9))
    for row, each in zip(rows, told, strict=True):
        assert row == {name: "" if value is None else str(value) for name, value in each.items()}
    lines = run("export", log, "--form", "syslog", "--verdict", "refused").out.splitlines()
    assert len(lines) == 2
    shape = r"<(\d+)>1 (\S+) (\S+) cloister - (\S+) \[cloister@32473((?: [a-z]+=\"(?:[^\"\\\]]|\\.)*\")+)\] (.+)"
    match = re.fullmatch(shape, lines[0])
    assert match is not None
    priority, when, host, action, data, words = match.groups()
    assert (int(priority), host, action) == (13 * 8 + 4, SITE, "task_admit")
    assert when.endswith("Z") and 'code="permit_revoked"' in data and "was revoked" in words


def test_a_proof_of_one_record_holds_without_the_log_and_for_that_record_alone(
    run: Callable[..., Done], log: Path, tmp_path: Path
) -> None:
    keys = log.parent / "audit-keys.txt"
    for number, witnessed in ((4, True), (6, False)):
        made = run("prove", number, log)
        assert made.code == 0 and f"{number}  " in made.err
        file = tmp_path / f"proof-{number}.json"
        file.write_text(made.out)
        done = run("check-proof", file, "--key", keys)
        assert done.code == 0 and done.numbers == [number]
        assert ("and no witness" not in done.err) == witnessed
        told = json.loads(made.out)
        changes = {
            "record": told["record"].replace("core", "code"),
            "proof": told["proof"][1:],
            "checkpoint": told["checkpoint"].replace('"size":', '"size":1'),
        }
        for name, value in changes.items():
            file.write_text(json.dumps(told | {name: value}))
            done = run("check-proof", file, "--key", keys)
            assert done.code == 4 and done.out == "", name
    late = run("prove", 8, log)
    assert late.code == 5 and "no checkpoint covers" in late.err
    assert run("check-proof", keys, "--key", keys).code == 2


def test_a_proof_with_anothers_witness_line_is_refused(run: Callable[..., Done], log: Path, tmp_path: Path) -> None:
    told = [json.loads(run("prove", number, log).out) for number in (4, 6)]
    file = tmp_path / "proof.json"
    file.write_text(json.dumps(told[1] | {"witness": told[0]["witness"]}))
    done = run("check-proof", file, "--key", log.parent / "audit-keys.txt")
    assert done.code == 4 and "another checkpoint" in done.err


def test_a_log_is_read_a_segment_at_a_time_and_shown_while_it_is_read(tmp_path: Path) -> None:
    """A later segment is not touched before the earlier one was shown: a log of any size fits."""
    count = RECORDS_PER_SEGMENT + 5
    folder = audit_log.write(tmp_path / "copy", map(record, range(1, count + 1)), [count])
    keys, _ = read_keys(tmp_path / "copy" / "audit-keys.txt")
    seen: list[int] = []

    def take(line: LogLine) -> None:
        seen.append(line.record.sequence)
        if line.record.sequence == RECORDS_PER_SEGMENT:
            (folder / segment_name(2)).unlink()

    report = Log(folder, keys, None, None).read(lambda line: seen.append(line.record.sequence), first=count - 6)
    assert report is not None and report.ok and seen == list(range(count - 6, count + 1))
    with pytest.raises(UsageFault, match="cannot read"):
        Log(folder, keys, None, None).read(take, first=RECORDS_PER_SEGMENT - 1)
    assert seen[7:] == [RECORDS_PER_SEGMENT - 1, RECORDS_PER_SEGMENT]


def test_tail_follows_a_log_that_grows_and_waits_for_whole_lines(log: Path) -> None:
    words = [sys.executable, "-m", "node.cli", "audit", "tail", str(log), "--newest", "1", "--follow"]
    line = encode_line(record(9, action=Action.RESUME, object=f"site/{SITE}"))
    with (
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as following,
        (log / segment_name(1)).open("ab") as segment,
    ):
        assert following.stdout is not None
        try:
            assert following.stdout.readline().startswith("8  ")
            for part in (line[:20], line[20:]):
                segment.write(part)
                segment.flush()
            assert "to end the pause" in following.stdout.readline()
        finally:
            following.kill()
