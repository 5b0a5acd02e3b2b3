"""Files under way: pixels copied by threads while the next header is read. Nothing about the result may change."""

import errno
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.screening import Exclusion
from mediator.deid.values import Subject
from node.deid.copiers import Copiers, CopyJob
from node.deid.engine import ProfileEngine, Source, open_engine
from tests.sim.dicom import ct_slice, element, raw_file, to_bytes
from tests.sim.dicom_variety import variety

KEYED = Pseudonyms(bytes(32), "liver")
SUBJECT = Subject(KEYED, KEYED.patient("HX-77001234"), 100)


def opened(engine: ProfileEngine, path: Path, open_files: ExitStack) -> Source:
    handle = os.open(path, os.O_RDONLY)
    open_files.callback(os.close, handle)
    source = engine.open(handle)
    assert isinstance(source, Source)
    return source


def slices(folder: Path, count: int) -> list[Path]:
    dataset, paths = ct_slice(), []
    for number in range(count):
        dataset.SOPInstanceUID, dataset.InstanceNumber = f"1.2.826.0.1.{number + 1}", number + 1
        paths.append(folder / f"{number}.in")
        paths[-1].write_bytes(to_bytes(dataset))
    return paths


def test_with_and_without_threads_the_same_files_come_out(tmp_path):
    paths = slices(tmp_path, 20)
    for number, (_syntax, content) in enumerate(variety(7, 30)):
        paths.append(tmp_path / f"variety-{number}.in")
        paths[-1].write_bytes(content)
    alone, outcomes = open_engine("eucaim"), []
    with ExitStack() as files, Copiers() as copiers:
        engine = open_engine("eucaim", copiers)
        sources = [opened(engine, path, files) for path in paths]
        begun = [
            engine.begin(source, SUBJECT, path.with_suffix(".a"), hash_pixels=True)
            for source, path in zip(sources, paths, strict=True)
        ]
        outcomes = [finish() for finish in begun]
        for path, outcome in zip(paths, outcomes, strict=True):
            expected = alone.convert(opened(alone, path, files), SUBJECT, path.with_suffix(".b"), hash_pixels=True)
            assert (outcome.exclusion, outcome.pixels_sha256) == (expected.exclusion, expected.pixels_sha256)
            assert path.with_suffix(".a").exists() == path.with_suffix(".b").exists() == (outcome.exclusion is None)
            if outcome.exclusion is None:
                assert path.with_suffix(".a").read_bytes() == path.with_suffix(".b").read_bytes()
    assert sum(outcome.exclusion is None for outcome in outcomes) > 40


def test_a_source_that_shrinks_while_it_is_copied_leaves_nothing(tmp_path):
    (path,) = slices(tmp_path, 1)
    with ExitStack() as files, Copiers() as copiers:
        engine = open_engine("eucaim", copiers)
        source = opened(engine, path, files)
        os.truncate(path, path.stat().st_size - 100)
        assert engine.begin(source, SUBJECT, tmp_path / "out")().exclusion is Exclusion.TRUNCATED
    assert not (tmp_path / "out").exists()


def test_a_file_that_was_changed_behind_the_writer_does_not_stand(tmp_path):
    """Whoever may write beside us puts a name into the file between writing and checking."""
    (path,) = slices(tmp_path, 1)
    with ExitStack() as files, Copiers() as copiers:
        engine = open_engine("eucaim", copiers)
        begun = engine.begin(opened(engine, path, files), SUBJECT, tmp_path / "out")
        with (tmp_path / "out").open("r+b") as output:
            output.seek(200)
            output.write(b"Vermeulen")
        assert begun().exclusion is Exclusion.UNREADABLE
    assert not (tmp_path / "out").exists()


def test_what_a_thread_meets_is_told_to_whoever_asks_for_the_result():
    def full() -> int:
        raise OSError(errno.ENOSPC, "no room")

    with Copiers(1) as copiers:
        failing, working = CopyJob(full), CopyJob(lambda: 7)
        copiers.submit(failing)
        copiers.submit(working)
        with pytest.raises(OSError, match="no room"):
            failing.result()
        assert working.result() == 7


class NobodyCopies(Copiers):
    def submit(self, job: CopyJob[object]) -> None:  # type: ignore[override]
        raise AssertionError("handed over")


def test_a_large_header_does_not_wait_in_line(tmp_path):
    """Six of 32 MB under way would be gigabytes: it is written, checked and let go at once."""
    path = tmp_path / "in"
    path.write_bytes(raw_file(element(0x00281203, b"OW", bytes(2 << 20))))
    with ExitStack() as files, NobodyCopies() as copiers:
        engine = open_engine("basic", copiers)
        assert engine.begin(opened(engine, path, files), SUBJECT, tmp_path / "out")().exclusion is None
    assert (tmp_path / "out").stat().st_size > 2 << 20
