"""The scripts a person calls: each says what it does when asked, and a slip is told before anything is prepared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(
    path for folder in ("deploy", "tests") for path in (ROOT / folder).rglob("*.sh") if os.access(path, os.X_OK)
)
RUN = ROOT / ".ci" / "run"


def run(script: Path, *words: str, cwd: Path, user: int | None = None) -> subprocess.CompletedProcess[str]:
    """With no engine to be found and no folder to install into: whoever begins to work fails."""
    nowhere = {"PATH": os.environ["PATH"], "DOCKER_HOST": "unix:///nowhere/docker.sock", "CLOISTER_VENV": "/proc/venv"}
    return subprocess.run(
        [str(script), *words],
        capture_output=True, text=True, timeout=30, env=nowhere, cwd=cwd, check=False, user=user, group=user,
        extra_groups=None if user is None else [],
    )  # fmt: skip


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


def test_ci_says_what_it_checks_and_checks_nothing(tmp_path: Path) -> None:
    done = run(RUN, "--help", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == "" and done.stdout.startswith("test.sh ")


VERBS = [(ROOT / "deploy" / "install.sh", verb) for verb in ("node", "hub", "upgrade", "rollback", "uninstall")] + [
    (ROOT / "deploy" / "release.sh", verb) for verb in ("0.3.0", "keygen", "verify")
]


@pytest.mark.parametrize(("script", "verb"), VERBS, ids=lambda each: getattr(each, "name", each))
def test_help_is_first_behind_every_verb(script: Path, verb: str, tmp_path: Path) -> None:
    done = run(script, verb, "--dry-run", "--help", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == "" and verb.strip("0.3") in done.stdout
    slip = run(script, verb, "--no-such-option", cwd=tmp_path)
    assert slip.returncode == 2 and "--no-such-option" in slip.stderr and "\nhint: " in slip.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="as another user than root")
def test_help_needs_neither_root_nor_an_environment() -> None:
    closed = [at for at in (ROOT, *ROOT.parents) if not at.stat().st_mode & 0o001]
    for script in () if closed else (*SCRIPTS, RUN):
        done = run(script, "--help", cwd=Path("/"), user=65534)
        assert done.returncode == 0 and done.stderr == "", (script, done)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_an_unknown_option_is_refused_with_a_hint_before_anything_is_made(script: Path, tmp_path: Path) -> None:
    if script.name == "test.sh":  # pytest is asked, which may have to be installed first
        assert "pytest finds no test with these arguments" in script.read_text()
        return
    done = run(script, "--no-such-option", cwd=tmp_path)
    assert done.returncode == 2 and "\nhint: " in f"\n{done.stderr}" and "error: " in done.stderr, done
    assert not done.stdout and not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", [each for each in SCRIPTS if "only_told" in each.read_text()], ids=lambda p: p.name)
def test_what_is_only_part_of_an_options_name_is_no_option(script: Path, tmp_path: Path) -> None:
    options = set(re.findall(r"--[a-z][a-z-]+", run(script, "--help", cwd=tmp_path).stdout)) - {"--help"}
    for option in {each[:-1] for each in options} - options:
        slip = run(script, f"{option}=x", cwd=tmp_path)
        assert slip.returncode == 2 and f"knows no option {option}\n" in slip.stderr, option


@pytest.mark.parametrize("words", [("--fast", "--help"), ("-x", "-h")])
def test_help_is_given_wherever_it_stands(words: tuple[str, ...], tmp_path: Path) -> None:
    assert "--fast" in run(ROOT / "deploy" / "test.sh", *words, cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("deploy/demo.sh --rounds 2", "--rounds is 3 to 50"), ("deploy/demo.sh --rouns 5", "knows no option --rouns"),
        ("deploy/demo.sh --rounds many", "invalid int"), ("deploy/demo.sh --work /etc", "not a demo's folder"),
        ("deploy/lib/images.sh cloister-tourch", "no image is called cloister-tourch"),
        ("deploy/lib/environment.sh everything", "no environment everything"),
        ("deploy/lib/engine.sh podman", "takes no argument"),
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
