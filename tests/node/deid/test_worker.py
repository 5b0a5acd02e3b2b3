"""A worker process of `deid run`: its limit, and what is told while it works."""

import multiprocessing
import os
import resource
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from node.deid.deidentify_folder import File, OutputFolders
from node.deid.run import Processes, list_files
from node.deid.worker import Settings, run, start
from tests.sim.dicom import ct_slice, element, raw_file, to_bytes


def peak_bytes() -> int:
    with open("/proc/self/status") as status:
        return 1024 * int(next(line.split()[1] for line in status if line.startswith("VmHWM")))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "in").mkdir()
    return Settings(str(tmp_path / "in"), tmp_path / "out", "eucaim", bytes(range(32)), "liver", "house", "off", 2)


@pytest.fixture
def worker(settings: Settings) -> Iterator[ProcessPoolExecutor]:
    rooms = OutputFolders(settings.output)
    rooms.partial.mkdir()
    rooms.output.mkdir()
    with ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), initializer=start, initargs=(settings,)
    ) as processes:
        yield processes


def slices(folder: str, count: int) -> None:
    dataset = ct_slice()
    for number in range(count):
        dataset.SOPInstanceUID = f"1.2.826.0.1.{number + 1}"
        Path(folder, f"{number:03d}.dcm").write_bytes(to_bytes(dataset))


def test_a_worker_gets_no_more_memory_than_its_limit(worker):
    """As a file would that finds a way past every other limit."""
    assert worker.submit(resource.getrlimit, resource.RLIMIT_AS).result()[0] < 2 << 30
    assert worker.submit(resource.getrlimit, resource.RLIMIT_CORE).result() == (0, 0)
    with pytest.raises(MemoryError):
        worker.submit(bytearray, 1 << 29).result()
    assert worker.submit(os.getpid).result() != os.getpid()  # it lives, and takes the next batch


def test_hostile_headers_one_after_the_other_leave_a_worker_small(settings, worker):
    slices(settings.source, 4)
    for number in range(6):
        body = element(0x00420011, b"OB", os.urandom(1 << 10) * (20 << 10))
        Path(settings.source, f"wide-{number}.dcm").write_bytes(raw_file(body))
    outcomes = [result.outcome for result in worker.submit(run, list_files(settings.source), {}).result()[0]]
    assert len(outcomes) == 10 and outcomes[:4] == ["review"] * 4  # --ocr off: nobody read their pixels
    assert worker.submit(peak_bytes).result() < 300_000_000


def test_files_under_way_are_told_before_their_batch_is_finished(settings):
    slices(settings.source, 9)
    with Processes(settings, 1) as workers:
        assert workers.under_way == (0, 0)
        (results,) = workers.run([list_files(settings.source)])
        assert len(results) == 9 and workers.under_way == (9, 0)


def test_a_file_that_vanished_is_a_finding_among_files_under_way(settings, worker):
    slices(settings.source, 9)
    files = list_files(settings.source)
    Path(settings.source, "004.dcm").unlink()
    results = worker.submit(run, [*files, File(10, "link", "not_a_file")], {}).result()[0]
    assert [result.number for result in results] == list(range(1, 11))
    assert {result.number: result.reasons for result in results if result.outcome == "refused"} == {
        5: ("not_a_file",),
        10: ("not_a_file",),
    }
