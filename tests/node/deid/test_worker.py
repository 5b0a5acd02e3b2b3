"""A worker process of `deid run`: its limit, and what is told while it works."""

import multiprocessing
import os
import resource
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from node.deid.pipeline import Batch, File
from node.deid.processes import WorkerProcesses, run, start
from node.deid.run import FolderRun, list_files
from node.deid.sinks import FolderSink
from node.deid.worker_settings import Settings, table_of
from tests.sim.dicom import ct_slice, element, raw_file, to_bytes


def peak_bytes() -> int:
    with open("/proc/self/status") as status:
        return 1024 * int(next(line.split()[1] for line in status if line.startswith("VmHWM")))


@pytest.fixture
def order(tmp_path: Path) -> FolderRun:
    (tmp_path / "in").mkdir()
    return FolderRun(str(tmp_path / "in"), tmp_path / "out", "eucaim", bytes(range(32)), "liver", "house", "off")


@pytest.fixture
def settings(order: FolderRun) -> Settings:
    return replace(order.settings(table_of(order.profile)), copiers=2)


@pytest.fixture
def sink(order: FolderRun) -> Iterator[FolderSink]:
    with order.sink as sink:
        yield sink


@pytest.fixture
def worker(settings: Settings) -> Iterator[ProcessPoolExecutor]:
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


def test_hostile_headers_one_after_the_other_leave_a_worker_small(order, sink, worker):
    slices(order.source, 4)
    for number in range(6):
        body = element(0x00420011, b"OB", os.urandom(1 << 10) * (20 << 10))
        Path(order.source, f"wide-{number}.dcm").write_bytes(raw_file(body))
    done = worker.submit(run, Batch(tuple(list_files(order.source)), sink)).result()
    outcomes = [result.outcome for result in done.results]
    assert len(outcomes) == 10 and outcomes[:4] == ["review"] * 4  # --ocr off: nobody read their pixels
    assert worker.submit(peak_bytes).result() < 300_000_000


def test_files_under_way_are_told_before_their_batch_is_finished(order, sink, settings):
    slices(order.source, 9)
    with WorkerProcesses(settings, 1) as workers:
        assert workers.under_way == (0, 0)
        (done,) = workers.run([Batch(tuple(list_files(order.source)), sink)])
        assert len(done.results) == 9 and workers.under_way == (9, 0)


def test_a_file_that_vanished_is_a_finding_among_files_under_way(order, sink, worker):
    slices(order.source, 9)
    files = list_files(order.source)
    Path(order.source, "004.dcm").unlink()
    results = worker.submit(run, Batch((*files, File(10, "link", "not_a_file")), sink)).result().results
    assert [result.number for result in results] == list(range(1, 11))
    assert {result.number: result.reasons for result in results if result.outcome == "refused"} == {
        5: ("not_a_file",),
        10: ("not_a_file",),
    }
