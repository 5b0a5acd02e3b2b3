"""Worker processes: what becomes of a batch whose worker dies, of workers whose parent dies, and of a full disk."""

import errno
import os
import re
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mediator.deid.pseudonyms import Pseudonyms
from mediator.errors import UsageFault
from node.deid.pipeline import Batch, NoRoom, Placed, Search
from node.deid.processes import WorkerProcesses
from node.deid.run import list_files
from node.deid.sinks import StudySink
from node.deid.source_folder import FolderSource
from node.deid.worker_settings import Settings
from tests.node.cli.deid_desk import plain_slice, put
from tests.sim.deid_workers import InProcess, headers_only

ROOT = Path(__file__).parents[3]
HOLDER = """
import sys, time
from mediator.deid.pseudonyms import Pseudonyms
from node.deid.processes import WorkerProcesses
from node.deid.pipeline import File
from node.deid.source_folder import FolderSource
from node.deid.worker_settings import Settings
if __name__ == "__main__":
    settings = Settings(FolderSource(sys.argv[1]), "eucaim", Pseudonyms(bytes(32), "liver"))
    with WorkerProcesses(settings, 2) as workers:
        list(workers.survey([File(number, "0") for number in range(40)]))
        print(*workers._pool._processes, flush=True)
        time.sleep(60)
"""


class Treacherous(FolderSource):
    """A source over some of whose files a worker dies, or has no memory or no room left."""

    def open(self, path):
        if path.startswith("kills"):
            os.kill(os.getpid(), signal.SIGKILL)
        if path.startswith("fills"):
            raise OSError(errno.ENOSPC, "full")
        if path.startswith("swells"):
            raise MemoryError
        return super().open(path)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "in").mkdir()
    source = Treacherous(str(tmp_path / "in"))
    return Settings(source, "eucaim", Pseudonyms(bytes(32), "liver"), parts=headers_only)


def batch_of(tmp_path: Path, *names: str) -> Batch:
    for number, name in enumerate(names):
        put(tmp_path / "in", name, plain_slice(SOPInstanceUID=f"1.2.3.{number}"))
    return Batch(tuple(list_files(str(tmp_path / "in"))), StudySink(tmp_path / "study"))


def test_a_file_that_takes_its_worker_down_alone_is_unreadable_and_the_others_of_its_study_are_done(settings, tmp_path):
    batch = batch_of(tmp_path, "a", "b", "kills", "swells", "z")
    with WorkerProcesses(settings, 1) as workers:
        surveys = list(workers.survey(batch.files))
        (done,) = workers.run([batch])
        (after,) = workers.run([replace(batch, files=batch.files[:1], sink=StudySink(tmp_path / "other"))])
    expected = [None, None, "unreadable", "too_large", None]
    assert [survey.exclusion for survey in surveys] == expected
    assert [result.exclusion for result in done.results] == expected
    assert len({survey.identity.study for survey in surveys if survey.exclusion is None}) == 1
    names = {result.name for result in done.results if result.outcome == "written"}
    assert names == {path.name for path in (tmp_path / "study").glob("*.dcm")} and len(names) == 3
    assert after.results[0].outcome == "written"


def test_a_double_is_one_too_when_its_study_was_tried_file_by_file(settings, tmp_path):
    batch = batch_of(tmp_path, "a", "kills")
    put(tmp_path / "in", "b", plain_slice(SOPInstanceUID="1.2.3.0"))
    batch = replace(batch, files=tuple(list_files(str(tmp_path / "in"))))
    with WorkerProcesses(settings, 1) as workers:
        (done,) = workers.run([batch])
    assert [result.exclusion for result in done.results] == [None, "duplicate_instance", "unreadable"]


@pytest.mark.parametrize("start", [InProcess, lambda settings: WorkerProcesses(settings, 1)], ids=["one", "processes"])
def test_a_full_disk_ends_the_run_and_blames_no_file(settings, tmp_path, start):
    batch = batch_of(tmp_path, "a", "fills", "z")
    with start(settings) as workers, pytest.raises(NoRoom) as caught:
        list(workers.run([batch]))
    assert caught.value.message == "no room left" and caught.value.hint and caught.value.exit_code == 5
    assert not list((tmp_path / "study").glob("*.dcm"))


def test_a_worker_that_cannot_begin_ends_the_run_and_blames_no_file(settings, tmp_path, capfd):
    batch = batch_of(tmp_path, "a", "b")
    with WorkerProcesses(replace(settings, parts=cannot_begin), 1) as workers, pytest.raises(AttributeError):
        list(workers.run([batch]))
    with (
        WorkerProcesses(replace(settings, profile="nobodys"), 1) as workers,
        pytest.raises(UsageFault, match="no such"),
    ):
        list(workers.survey(batch.files))
    assert not list((tmp_path / "study").glob("*.dcm"))
    said = (
        r"deid CRITICAL node\.deid\.processes: a worker cannot begin \[AttributeError at deid/test_processes\.py:\d+\]"
    )
    assert len(re.findall(said, capfd.readouterr().err)) == 1


def cannot_begin(settings, on_picture):
    return settings.no_such_attribute


def test_a_search_that_was_broken_off_says_the_same_again(settings, tmp_path):
    batch = batch_of(tmp_path, "a", "b")
    with InProcess(settings) as workers:
        (done,) = workers.run([batch])
        paths = [tmp_path / "study" / result.name for result in done.results]
        search = Search(tuple(map(Placed, batch.files, paths)), (b"chest",))
        assert list(workers.search_again([search])) == [()]
        paths[0].unlink()  # as by a search whose answer was lost
        (found,) = workers.search_again([search])
    assert [(result.number, result.reasons) for result in found] == [(1, ("residual_identifier",))]


def test_workers_end_with_their_parent_however_it_ends(tmp_path):
    (tmp_path / "source").mkdir()
    put(tmp_path / "source", "0", plain_slice())
    program = tmp_path / "holder.py"
    program.write_text(HOLDER)
    with subprocess.Popen(
        [sys.executable, program, tmp_path / "source"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2 and all(Path(f"/proc/{pid}").exists() for pid in pids)
        for pid in pids:
            assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
            assert resource.prlimit(pid, resource.RLIMIT_AS)[0] < 2 << 30
        parent.kill()
    until = time.monotonic() + 10
    while any(map(_lives, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(_lives, pids))


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
