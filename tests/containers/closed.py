"""What every engine must let a job do: read, by its group, what lies behind folders that nobody else may pass."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from containers import rooms
from containers.engine import ContainerEngine
from durable.reading_group import ReadingGroup
from mediator.errors import Denied
from tests.containers.bench import Bench

# core's group, as far as these folders are concerned
CORE = 64101
READ = "import pathlib; print(pathlib.Path('/data/studies/a/0001.dcm').read_text(), end='')"


def a_job_reads_by_its_group_alone(bench: Bench) -> None:
    engine, root = ContainerEngine(bench.url), bench.site.work_root
    gid = engine.users().group_outside(bench.site.gid)
    assert gid is not None
    spec, (data, inbox) = bench.spec("open"), rooms.folder_of(root, "closed")
    spec = replace(spec, job="closed", data_dir=data, in_dir=inbox)
    os.chown(root, 0, CORE)
    root.chmod(0o2750)
    wrong = replace(bench, site=replace(bench.site, group_outside=gid + 1))
    with pytest.raises(Denied, match=r"mount_not_permitted.*job_group"):
        wrong.broker().prepare(wrong.sign(spec))
    bench.site = replace(bench.site, group_outside=gid)
    broker = bench.broker()
    broker.prepare(bench.sign(spec))
    fill(Path(data), Path(inbox), ReadingGroup(gid))
    assert next(broker.execute("closed")).kind == "started"
    main = next(one.id for one in engine.containers(bench.site.site, "closed") if one.role == "job")
    assert engine.run(main, ["python3", "-I", "-c", READ], limit_bytes=100, timeout_s=20) == (0, b"pixels")
    found = (Path(data) / "studies/a/0001.dcm").stat()
    assert (found.st_gid, found.st_mode & 0o777) == (gid, 0o440) and root.stat().st_mode & 0o007 == 0


def fill(data: Path, inbox: Path, group: ReadingGroup) -> None:
    """As core fills them."""
    (data / "studies" / "a").mkdir(parents=True)
    (inbox / "tasks").mkdir()
    file = data / "studies" / "a" / "0001.dcm"
    file.write_text("pixels")
    group.give_file(file)
    for folder in (data / "studies", data / "studies" / "a", inbox / "tasks"):
        group.give_folder(folder)
