"""A defect of ours is its own finding: logged by class and place, told apart from what a file can do, nothing lost."""

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
import typer

from mediator.deid.pseudonyms import Pseudonyms
from node.cli.steward.deid import carry_out
from node.deid.outcome import Identity
from node.deid.pipeline import Batch, File
from node.deid.processes import WorkerProcesses
from node.deid.run import FolderRun, list_files
from node.deid.sinks import StudySink
from node.deid.source_folder import FolderSource
from node.deid.stream import MemoryStream
from node.deid.worker import Worker
from node.deid.worker_settings import Settings
from tests.node.cli.deid_desk import files, instances, plain_slice, put, report
from tests.node.cli.deid_desk import key as key
from tests.sim.deid_workers import InProcess, defective, headers_only, never_searched
from tests.sim.dicom_variety import variety

LINE = r"deid ERROR node\.deid\.worker: src#(\d{4}) our_defect \[AttributeError at sim/deid_workers\.py:\d+\]"


def three_and_three(source: Path) -> None:
    """Three files that the planted defect is met over, one of them first in its folder, among three others."""
    for number in range(6):
        described = {"SeriesDescription": "DEFECT Hartog"} if number % 2 == 0 else {}
        uids = {"SOPInstanceUID": f"1.2.3.{number + 1}", "SeriesInstanceUID": f"1.2.4.{number % 2}"}
        put(source / "ab"[number // 3], str(number), plain_slice(**uids, **described))


def order_for(tmp_path: Path, **changes: object) -> FolderRun:
    order = FolderRun(str(tmp_path / "source"), tmp_path / "out", "eucaim", b"", "liver", "alpha", "off")
    return replace(order, **changes)


def told(order: FolderRun, key: Path, capfd: pytest.CaptureFixture[str]) -> tuple[int, dict, str]:
    """(exit code, the summary, what was said)"""
    capfd.readouterr()
    code = 0
    try:
        carry_out(order, key, 1, None, as_json=True)
    except typer.Exit as stop:
        code = stop.exit_code
    out, err = capfd.readouterr()
    return code, json.loads(out), err


def test_files_that_met_a_defect_wait_the_others_are_done_and_the_run_ends_with_1(key, tmp_path, capfd):
    three_and_three(tmp_path / "source")
    before = files(tmp_path / "source")
    code, summary, said = told(order_for(tmp_path, parts=defective), key, capfd)
    assert (code, summary["written"], summary["refused_reasons"]) == (1, 3, {"our_defect": 3})
    assert [line["outcome"] for line in report(tmp_path / "out")] == ["refused", "written"] * 3
    assert re.findall(LINE, said) == ["0001", "0003", "0005"] and "Hartog" not in said
    assert "3 files met a defect in cloister and wait in SRC" in said and "please report the lines" in said
    standing = instances(tmp_path / "out")
    assert len(standing) == 3 and files(tmp_path / "source") == before and not (tmp_path / ".out.partial").exists()
    # and once we have mended ourselves, a second run takes them
    code, summary, said = told(order_for(tmp_path), key, capfd)
    assert (code, summary["written"], summary["refused"]) == (0, 6, 0) and set(standing) < set(
        instances(tmp_path / "out")
    )


def test_1_wins_over_3_where_nothing_could_be_written(key, tmp_path, capfd):
    put(tmp_path / "source", "1", plain_slice(SeriesDescription="DEFECT"))
    put(tmp_path / "source", "2", b"no DICOM")
    code, summary, said = told(order_for(tmp_path, parts=defective), key, capfd)
    assert (code, summary["refused_reasons"]) == (1, {"not_dicom": 1, "our_defect": 1})
    assert "1 file met a defect" in said and "nothing could be written" not in said


def test_what_fails_over_a_whole_batch_holds_every_file_of_it_and_no_other(key, tmp_path, capfd):
    """Nobody can vouch for files that were not searched for each other's names."""
    source = tmp_path / "source"
    for number in range(4):
        description = {"SeriesDescription": "PELVIS"} if number == 1 else {}
        patient = "P-1" if number < 2 else "P-2"
        uids = {"SOPInstanceUID": f"1.2.3.{number}", "StudyInstanceUID": f"1.2.5.{patient[2:]}", "PatientID": patient}
        put(source / patient, str(number), plain_slice(**uids, **description))
    put(source / "P-1", "9", b"no DICOM")
    code, summary, said = told(order_for(tmp_path, parts=never_searched), key, capfd)
    assert (code, summary["written"]) == (1, 2)
    assert summary["refused_reasons"] == {"not_dicom": 1, "our_defect": 2}
    assert re.search(r"src#0001 to src#0003 our_defect \[KeyError at sim/deid_workers\.py:\d+\]", said)
    assert len(instances(tmp_path / "out")) == 2


def test_a_survey_that_meets_a_defect_says_so_and_its_file_is_not_tried(key, tmp_path, capfd):
    (tmp_path / "source").mkdir()
    settings = Settings(
        FolderSource(str(tmp_path / "source")), "eucaim", Pseudonyms(bytes(32), "liver"), parts=unsurveyed
    )
    put(tmp_path / "source", "1", plain_slice())
    with InProcess(settings) as workers:
        (survey,) = workers.survey([File(1, "1")])
    assert survey.exclusion == "our_defect" and survey.identity == Identity()
    put(tmp_path / "source", "b/1", plain_slice(SOPInstanceUID="1.2.3"))
    code, summary, said = told(order_for(tmp_path, parts=unsurveyed), key, capfd)
    assert (code, summary["refused_reasons"]) == (1, {"our_defect": 2}) and said.count("our_defect [") == 2


def unsurveyed(settings, on_picture):
    parts = headers_only(settings, on_picture)
    parts.engine.named = None
    return parts


class Held:
    """Originals in memory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def open(self, path: str) -> MemoryStream:
        return MemoryStream(self.files[path])


LIES = (
    b"\xff\xff\xff\xff", b"\0\0", b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0", b"SQ", b"UN", b"PN",
    b"\x08\x00\x05\x00CS", b"ISO 2022 IR 87", b"\x1b$B", b"\xe0\x7f\x10\x00", b"1.2.840.10008.1.2.5\0", b"\xff\xd8",
    b"1.2.840.10008.1.2.4.50", b"\xff\x4f", b"\x10\x00\x10\x00", b"nan", b"9" * 20,
)  # fmt: skip


def damaged(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 3, 6))):
        at, kind = chance.randrange(100, len(changed)), chance.random()
        lie = chance.choice(LIES)
        if kind < 0.4:
            changed[at] = chance.randrange(256)
        elif kind < 0.6:
            changed[at : at + len(lie)] = lie
        elif kind < 0.75:
            changed[at:at] = lie
        elif kind < 0.85:
            del changed[at : at + chance.randrange(1, 40)]
        elif kind < 0.95:
            start = chance.randrange(100, len(changed))
            changed[at:at] = changed[start : start + chance.randrange(1, 200)]
        else:
            del changed[max(at, 150) :]
    return bytes(changed)


@pytest.mark.parametrize("review", [True, False])
def test_no_file_however_damaged_is_taken_for_a_defect_of_ours(tmp_path, review):
    """What a hospital's files can do must never stop its studies from being taken in."""
    chance, held = random.Random(11), Held()
    settings = Settings(held, "eucaim", Pseudonyms(bytes(32), "liver"), review=review, parts=headers_only)
    worker, seeds, seen = Worker(settings), [content for _, content in variety(11, 60)], set()
    for turn in range(300):
        held.files = {str(number): damaged(chance.choice(seeds), chance) for number in range(1, 5)}
        batch = Batch(tuple(File(number, str(number)) for number in range(1, 5)), StudySink(tmp_path / str(turn)))
        seen |= {worker.survey(file).exclusion for file in batch.files}
        seen |= {reason for result in worker.run(batch).results for reason in result.reasons}
    assert "our_defect" not in seen and {"malformed", "truncated"} <= seen


def test_processes_and_one_process_say_the_same(tmp_path):
    """Both are `Workers`: an import's study, in worker processes and without."""
    source = tmp_path / "source"
    three_and_three(source)
    put(source, "truncated", plain_slice(SOPInstanceUID="1.2.3.99"))
    whole = (source / "truncated").read_bytes()
    (source / "truncated").write_bytes(whole[:-10])
    originals, found = tuple(list_files(str(source))), []
    keyed = Pseudonyms(bytes(32), "liver")
    for name, start in (("one", InProcess), ("processes", lambda settings: WorkerProcesses(settings, 2))):
        settings = Settings(FolderSource(str(source)), "eucaim", keyed, parts=defective)
        with start(settings) as workers:
            surveys = list(workers.survey(originals))
            (done,) = workers.run([Batch(originals, StudySink(tmp_path / name))])
            found.append((surveys, done.results, [(one.numbers, one.keys, set(one.lost)) for one in done.traces]))
        StudySink(tmp_path / name).tidy()
    assert found[0] == found[1] and files(tmp_path / "one") == files(tmp_path / "processes")
    assert [result.exclusion for result in found[0][1]] == ["our_defect", None] * 3 + ["truncated"]
