"""The two lanes of `deploy/test.sh`: nothing of either is lost, and neither outlives the script.

The script itself, in a repository in which whatever it calls is a stand-in that notes how it was called.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.machine import eventually
from tests.install.machine import alive

DEPLOY = Path(__file__).parents[1] / "deploy"
# pytest's part: waits until both lanes run, writes a report of two passed tests, or does what PLAIN says
PYTEST = """\
import os, signal, sys, time
from pathlib import Path
words = sys.argv[3:]
lane = "engine" if words[words.index("-m") + 1] == "engine" else "plain"
Path(os.environ["NOTES"], lane).write_text(f"{os.getpid()} {os.nice(0)}")
patience = time.monotonic() + 20
while len(os.listdir(os.environ["NOTES"])) < 2 and time.monotonic() < patience:
    time.sleep(0.02)
both = len(os.listdir(os.environ["NOTES"])) == 2
ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
print(f"{lane}: beside the other: {both}, deaf to an interrupt: {ignored}")
if lane == os.environ.get("LINGERS"):
    time.sleep(60)
if lane == "plain" and os.environ.get("PLAIN") == "killed":
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
failures = int(lane == "plain" and os.environ.get("PLAIN") == "fails")
report = next(word for word in words if word.startswith("--junit-xml=")).partition("=")[2]
Path(report).write_text(f'<testsuite tests="2" errors="0" failures="{failures}" skipped="0"/>')
sys.exit(failures)
"""
PYTHON = '#!/bin/sh\ncase "$1 $2" in "-m pytest") exec {python} "$STAND_IN" "$@" ;; *) exec {python} "$@" ;; esac\n'


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    (folder / "deploy" / "lib").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    for name in ("test.sh", "lib/say.sh", "lib/count_tests.py"):
        shutil.copy2(DEPLOY / name, folder / "deploy" / name)
    says = {"environment": tmp_path / "venv", "engine": "unix:///nowhere"}
    for name in ("environment", "engine", "walls", "images", "dicom_tools", "systemd"):
        write(folder / "deploy" / "lib" / f"{name}.sh", f"#!/bin/sh\necho {says.get(name, '')}\n")
    for name in ("ruff", "mypy", "lint-imports"):
        write(tmp_path / "venv" / "bin" / name, "#!/bin/sh\n")
    write(tmp_path / "pytest.py", PYTEST)
    write(tmp_path / "venv" / "bin" / "python", PYTHON.format(python=sys.executable))
    return folder


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def start(repo: Path, **environment: str) -> subprocess.Popen[str]:
    above = repo.parent
    given = {
        "PATH": os.environ["PATH"], "NOTES": str(above / "notes"), "STAND_IN": str(above / "pytest.py"),
        "TMPDIR": str(above), **environment,
    }  # fmt: skip
    return subprocess.Popen(
        [repo / "deploy" / "test.sh"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env=given, start_new_session=True,
    )  # fmt: skip


def test_both_lanes_run_at_once_hear_an_interrupt_and_are_counted(repo: Path) -> None:
    script = start(repo)
    said, _ = script.communicate(timeout=60)
    assert script.returncode == 0, said
    for lane in ("plain", "engine"):
        assert f"{lane}: beside the other: True, deaf to an interrupt: False" in said
    assert said.splitlines()[-1] == "tests: 4 passed, 0 failed"
    nice = {lane: int((repo.parent / "notes" / lane).read_text().split()[1]) for lane in ("plain", "engine")}
    ours = os.nice(0)  # where these tests are in the background themselves, 5 as well
    assert nice == {"plain": max(5, ours), "engine": ours}, "what measures an engine's seconds is served first"


@pytest.mark.parametrize(("plain", "last"), [("fails", "3 passed, 1 failed"), ("killed", "2 passed, 1 failed")])
def test_what_fails_in_the_background_fails_the_script(repo: Path, plain: str, last: str) -> None:
    script = start(repo, PLAIN=plain)
    said, _ = script.communicate(timeout=60)
    assert (script.returncode, said.splitlines()[-1]) == (1, f"tests: {last}"), said


def test_a_script_that_is_ended_leaves_no_lane_behind(repo: Path) -> None:
    noted = [repo.parent / "notes" / lane for lane in ("plain", "engine")]
    script = start(repo, LINGERS="plain")
    eventually(lambda: all(map(Path.exists, noted)) and noted[0].read_text(), what="both lanes")
    lane = int(noted[0].read_text().split()[0])
    time.sleep(0.2)
    os.killpg(script.pid, signal.SIGINT)
    script.wait(20)
    eventually(lambda: not alive(lane), within_s=10, what="the lane's end")


def test_images_that_cannot_be_made_end_the_script_and_the_lane(repo: Path) -> None:
    write(
        repo / "deploy" / "lib" / "images.sh", '#!/bin/sh\nuntil [ -s "$NOTES/plain" ]; do sleep 0.02; done; exit 5\n'
    )
    script = start(repo, LINGERS="plain")
    assert script.wait(30) == 5
    lane = int((repo.parent / "notes" / "plain").read_text().split()[0])
    eventually(lambda: not alive(lane), within_s=10, what="the lane's end")
