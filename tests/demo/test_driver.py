"""One driver for the demo and the end-to-end tests: commands that fail, programs that start, end, or do not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.demo import hospital as demo_hospital
from deploy.demo import hub as demo_hub
from deploy.driver import hub, node
from deploy.driver.commands import Commands
from deploy.driver.failures import DriverFailed
from deploy.driver.services import Service, descendants, start, stop
from tests.end_to_end import hospital as tested_hospital
from tests.end_to_end import hub as tested_hub

SCRIPT = """\
#!/bin/sh
case "$1" in
  good) echo '{"is": 1}'; echo 'a word' >&2 ;;
  bad) echo 'error: no such thing' >&2; echo 'hint: look again' >&2; exit 3 ;;
  slow) exec sleep 60 ;;
  serve) echo 'getting up'; echo 'ready at last'; exec sleep 60 ;;
  falls) echo 'error: the port is taken' >&2; exit 2 ;;
esac
"""


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    program = tmp_path / "cloister"
    program.write_text(SCRIPT)
    program.chmod(0o755)
    return Commands(program, {"PATH": os.environ["PATH"]}, tmp_path / "commands.log", "look there")


@pytest.mark.parametrize(
    ("drivers", "theirs"),
    [
        (hub.Hub, [demo_hub.Hub, tested_hub.Hub]),
        (node.Node, [demo_hospital.Hospital, tested_hospital.Hospital]),
    ],
)
def test_demo_and_end_to_end_tests_drive_in_one_way(drivers: type, theirs: list[type]) -> None:
    """Each adds what it alone needs, and has no second way to do what the driver does."""
    driven = {name for one in drivers.__mro__[:-1] for name in vars(one) if not name.startswith("_")}
    assert {"run", "serve", "stop", "kill", "configure"} <= driven
    for each in theirs:
        assert issubclass(each, drivers)
        assert not driven & vars(each).keys(), each


def test_a_command_that_worked_is_handed_back_and_written_down(commands: Commands, tmp_path: Path) -> None:
    heard: list[str] = []
    done = commands.attempt("good", tmp_path / "a b", on_error_line=heard.append)
    assert (done.code, done.json(), done.err, heard) == (0, {"is": 1}, "a word\n", ["a word"])
    log = (tmp_path / "commands.log").read_text()
    assert log.startswith(f"$ cloister good '{tmp_path}/a b'\n  a word\n  exit 0 after ")
    assert list(commands.lines("good")) == ['{"is": 1}\n']


def test_a_command_that_failed_ends_it_with_its_own_words_and_code(commands: Commands) -> None:
    with pytest.raises(DriverFailed, match=r"`bad thing …` exited 3: error: no such thing · hint: look") as failed:
        commands("bad", "/some/where/thing")
    assert (failed.value.code, failed.value.hint) == (3, "look there")


def test_a_command_that_takes_too_long_is_killed(commands: Commands) -> None:
    began = time.monotonic()
    assert commands.attempt("slow", within_s=0.2).code == -signal.SIGKILL
    assert time.monotonic() - began < 30


def test_a_program_is_ready_when_it_says_so_and_again_at_its_next_start(commands: Commands, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for _ in range(2):
        beyond = log.stat().st_size if log.exists() else 0
        service = Service("hub", start(commands, log, "serve"), log)
        try:
            service.wait_until_said(b"ready at", beyond)
        finally:
            service.stop()
        assert not service.runs


def test_a_program_that_ends_instead_says_why(commands: Commands, tmp_path: Path) -> None:
    service = Service("hub", start(commands, tmp_path / "log", "falls"), tmp_path / "log")
    with pytest.raises(DriverFailed, match="hub ended at once: error: the port is taken"):
        service.wait_until_said(b"ready at", 0)


def test_whoever_ends_too_late_is_killed_with_all_that_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.driver.services.STOP_WITHIN_S", 0.5)
    deaf = "import signal, subprocess; signal.signal(signal.SIGTERM, signal.SIG_IGN); subprocess.run(['sleep', '60'])"
    process = subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True)
    while not (children := list(descendants(process.pid))):
        time.sleep(0.02)
    stop([process])
    assert process.poll() == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{child}").exists() and "sleep" in _name(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""
