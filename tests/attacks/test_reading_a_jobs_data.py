"""What a job is shown, asked for by everybody else on the machine who knows where it lies.

No engine is needed: the folders are made by a process of the broker's user and filled by one of core's, as in a node,
and each attempt is a process of the user who makes it. A job's own process stands in its `/data` without having come
there, as a mount does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from node.host.config import NodeConfig
from node.host.state import prepare_state
from tests.node.host.test_state import IDS, config_in
from tests.sim.users import NOBODY, as_user

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="tries what each of a node's users may do")

JOB = 65532
REPO = Path(__file__).resolve().parents[2]
MAKE = """
from containers import rooms
os.umask(0o002)  # the broker's
for name in sys.argv[2:]:
    rooms.make(Path(sys.argv[1]), name)
"""
FILL = """
from datetime import UTC, datetime
from durable.reading_group import ReadingGroup
from containers.warm.container import WarmContainer
from durable.files import write_inside
from node.core.datasets.publish import folder_of
from node.host.versions import job_view, read_manifest
from tests.node.core import handover
state, group = Path(sys.argv[1]), ReadingGroup(int(sys.argv[2]))
asked = state / "core" / "handed-over"
handover.write_handover(asked, range(6), "ingest-1")
manifest = handover.publish(asked, state / "datasets", created=datetime(2026, 3, 1, tzinfo=UTC), group=group)
version = state / "datasets" / folder_of(manifest)
for name in sys.argv[3:]:
    container = WarmContainer(name, None, state / "work" / name, group=group)
    container.make_folders()
    job_view(version, manifest, "train", ["lesion"], container.data_dir, group)
    write_inside(container.tasks_dir / "model.safetensors", b"model", group.file_mode)
"""
TRY = """
import errno, json, os, sys
said = {}
for path in json.load(sys.stdin):
    try:
        open(path, "rb").read(1) if not os.path.isdir(path) else os.listdir(path)
        said[path] = "opened"
    except OSError as error:
        said[path] = errno.errorcode[error.errno]
print(json.dumps(said))
"""


def run(uid: int, groups: Sequence[int], code: str, *words: object) -> None:
    script = f"import os, sys; from pathlib import Path; os.umask(0o077); sys.path.insert(0, {str(REPO)!r})\n{code}"
    ended = subprocess.run(
        as_user([sys.executable, "-B", "-c", script, *map(str, words)], uid, groups), capture_output=True, text=True,
        cwd="/", check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr


def tried(uid: int, paths: Sequence[Path | str], groups: Sequence[int] = (), cwd: Path = Path("/")) -> dict[str, str]:
    command = as_user(["/usr/bin/python3", "-I", "-c", TRY], uid, groups)
    ended = subprocess.run(
        command, input=json.dumps([str(path) for path in paths]), capture_output=True, text=True, check=True, cwd=cwd
    )
    said: dict[str, str] = json.loads(ended.stdout)
    return said


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> NodeConfig:
    """A node with two jobs of two projects at work."""
    root = tmp_path_factory.mktemp("node")
    for folder in (root, *root.parents):
        if folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    made = config_in(root, separate=True)
    prepare_state(made)
    jobs = ("train-1", "train-2")
    run(IDS["broker"], [], MAKE, made.paths.work, *jobs)
    run(IDS["core"], [IDS["link"], IDS["intake"], JOB], FILL, made.paths.root, JOB, *jobs)
    return made


def shown(config: NodeConfig, job: str = "train-1") -> list[Path]:
    """Every file of a job's: its name is told in the mount table of the container, and in the engine's inspect."""
    folder = config.paths.work / job
    return [path for path in folder.rglob("*") if path.is_file()]


def test_there_is_something_to_read(config: NodeConfig) -> None:
    """Positive control: a job's two files for each of three studies, manifest, table and model."""
    paths = shown(config)
    assert len(paths) == 9
    assert set(tried(0, paths).values()) == {"opened"}
    assert set(tried(IDS["core"], paths, [JOB]).values()) == {"opened"}


@pytest.mark.parametrize("who", ["intake", "link", "broker", "nobody", "a job of another project"])
def test_knowing_the_name_of_a_jobs_folder_opens_nothing(config: NodeConfig, who: str) -> None:
    uid = {**IDS, "nobody": NOBODY, "a job of another project": JOB}[who]
    folders = [config.paths.work / "train-1" / name for name in ("data/studies", "in/tasks")]
    said = tried(uid, [*shown(config), *folders, next(config.paths.datasets.rglob("*.dcm"))])
    assert set(said.values()) == {"EACCES"}, said


def test_a_job_reads_what_it_was_shown_and_not_what_another_was(config: NodeConfig) -> None:
    """Seen from its own `/data`: another job's is a step up and down again, and has the same group."""
    data = config.paths.work / "train-2" / "data"
    own = [str(path.relative_to(data)) for path in data.rglob("*") if path.is_file()]
    assert len(own) == 8 and set(tried(JOB, own, cwd=data).values()) == {"opened"}
    others = [f"../../train-1/data/{name}" for name in own]
    assert set(tried(JOB, others, cwd=data).values()) == {"EACCES"}
    assert set(tried(NOBODY, [name for name in own if "/" in name], cwd=data).values()) == {"EACCES"}


def test_the_group_belongs_to_the_file_wherever_it_has_a_name(config: NodeConfig) -> None:
    """A view is links: who found another way to the file would find the same mode."""
    for path in [*shown(config), *config.paths.datasets.rglob("*.dcm")]:
        found = path.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (IDS["core"], JOB, 0o440), path


def test_what_was_published_for_everybody_is_its_group_when_it_is_shown(config: NodeConfig) -> None:
    """Versions of before this rule: no file of theirs is shown to a job as it was."""
    images = list(config.paths.datasets.rglob("*.dcm"))
    for path in images:
        os.chown(path, IDS["core"], IDS["core"])
        path.chmod(0o444)
    run(IDS["broker"], [], MAKE, config.paths.work, "train-3")
    again = (
        "from node.host.versions import job_view, read_manifest; from durable.reading_group import ReadingGroup\n"
        "job_view(Path(sys.argv[1]), read_manifest(Path(sys.argv[1])), 'train', ['lesion'], Path(sys.argv[2]), "
        f"ReadingGroup({JOB}))"
    )
    version = next(config.paths.datasets.glob("*/versions/*"))
    run(IDS["core"], [JOB], again, version, config.paths.work / "train-3" / "data")
    shown_again = [path for path in shown(config, "train-3") if path.suffix == ".dcm"]
    assert len(shown_again) == 6
    assert {(path.stat().st_gid, path.stat().st_mode & 0o777) for path in shown_again} == {(JOB, 0o440)}


@pytest.mark.parametrize("what", ["work/train-1", "work/train-1/data", "work/train-1/in"])
def test_core_puts_nothing_of_its_own_where_the_engine_mounts(config: NodeConfig, what: str) -> None:
    """Between the broker's check and the engine's mount, or ever."""
    folder = config.paths.root / what
    before = folder.stat().st_ino
    swap = (
        "import os, sys\n"
        "for act in (lambda: os.rename(sys.argv[1], sys.argv[1] + '.away'), lambda: os.rmdir(sys.argv[1]),\n"
        "            lambda: os.symlink('/', sys.argv[1] + '.new'), lambda: os.mkdir(sys.argv[1] + '.new')):\n"
        "    try:\n        act()\n    except OSError:\n        continue\n    sys.exit(9)\n"
    )
    command = as_user(["/usr/bin/python3", "-I", "-c", swap, str(folder)], IDS["core"], [IDS["link"], JOB])
    assert subprocess.run(command, check=False).returncode == 0
    assert folder.stat().st_ino == before and not folder.is_symlink()


def test_nothing_of_a_job_stays_when_core_has_emptied_what_the_broker_made(config: NodeConfig) -> None:
    """Neither could remove it alone."""
    room = config.paths.work / "train-2"
    run(IDS["core"], [JOB], "import shutil; shutil.rmtree(sys.argv[1], ignore_errors=True)", room)
    assert sorted(path.name for path in room.rglob("*")) == ["data", "in"]
    empty = "from containers.rooms import remove_empty; remove_empty(Path(sys.argv[1]), ['train-1'])"
    run(IDS["broker"], [], empty, config.paths.work)
    assert not room.exists() and shown(config)
