"""The scripts a person calls: each says what it does when asked, and a slip is told before anything is prepared."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(
    path for folder in ("deploy", "tests/fuzz") for path in (ROOT / folder).rglob("*.sh") if os.access(path, os.X_OK)
)


def run(script: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """With no engine to be found and no folder to install into: whoever begins to work fails."""
    nowhere = {"PATH": os.environ["PATH"], "DOCKER_HOST": "unix:///nowhere/docker.sock", "CLOISTER_VENV": "/proc/venv"}
    return subprocess.run(
        [str(script), *words], capture_output=True, text=True, timeout=30, env=nowhere, cwd=cwd, check=False
    )


def test_the_scripts_are_found() -> None:
    names = {path.name for path in SCRIPTS}
    assert {"test.sh", "demo.sh", "images.sh", "engine.sh", "environment.sh", "podman.sh", "run.sh"} <= names


@pytest.mark.parametrize("word", ["-h", "--help"])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_says_what_it_does_and_does_nothing(script: Path, word: str, tmp_path: Path) -> None:
    done = run(script, word, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done
    assert script.name in done.stdout.splitlines()[0] and len(done.stdout.split()) > 15
    assert "#!" not in done.stdout and "set -e" not in done.stdout


@pytest.mark.parametrize("words", [("--fast", "--help"), ("-x", "-h")])
def test_help_is_given_wherever_it_stands(words: tuple[str, ...], tmp_path: Path) -> None:
    assert "--fast" in run(ROOT / "deploy" / "test.sh", *words, cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("deploy/demo.sh --rounds 2", "--rounds is 3 to 50"), ("deploy/demo.sh --rouns 5", "unrecognized"),
        ("deploy/demo.sh --rounds many", "invalid int"), ("deploy/demo.sh --work /etc", "not a demo's folder"),
        ("deploy/lib/images.sh cloister-tourch", "no image is called cloister-tourch"),
        ("deploy/lib/environment.sh everything", "usage"), ("deploy/lib/engine.sh podman", "takes no argument"),
        ("deploy/lib/walls.sh -y", "takes no argument"), ("deploy/lib/dicom_tools.sh x", "takes no argument"),
    ],
)  # fmt: skip
def test_a_slip_is_told_before_anything_is_prepared(words: str, says: str, tmp_path: Path) -> None:
    script, *rest = words.split()
    done = run(ROOT / script, *rest, cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr, done


def test_the_demo_begins_where_its_folder_is_free(tmp_path: Path) -> None:
    done = subprocess.run(
        ["python3", "-m", "deploy.demo.arguments", "--work", "/var/tmp/cl-no-such-demo", "--rounds", "5"],
        capture_output=True, text=True, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done


@pytest.mark.parametrize(
    ("runs", "says"),
    [
        ([("4 0 1 1", 1)], "2 1 1"), ([("4 0 0 1", 0), ("9 1 1 2", 1)], "8 2 3"),
        ([("4 0 0 0", 0), ("5 0 0 0", 3)], "9 1 0"), ([("4 0 0 0", 0), ("", 0)], "4 1 0"),
    ],
    ids=["one run", "both runs", "a run that crashed", "a run without a report"],
)  # fmt: skip
def test_the_tests_of_every_run_are_counted(runs: list[tuple[str, int]], says: str, tmp_path: Path) -> None:
    words: list[str] = []
    for number, (numbers, status) in enumerate(runs):
        report = tmp_path / f"{number}.xml"
        if numbers:
            tests, failures, errors, skipped = numbers.split()
            report.write_text(
                f'<testsuites><testsuite tests="{tests}" failures="{failures}" errors="{errors}" skipped="{skipped}"/>'
                "</testsuites>"
            )
        words += [str(report), str(status)]
    script = ROOT / "deploy" / "lib" / "count_tests.py"
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == says
