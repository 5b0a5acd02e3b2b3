"""A support bundle holds nothing of anybody's: identifiers are planted wherever one could lie, and none is in it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mediator.errors import UsageFault
from node.cli import support_content as allowed
from node.cli.support import content
from node.core import staff
from node.core.core import CoreProcess
from node.host.config import load_config
from node.host.keys import read_verify_key
from node.host.state import prepare_state
from node.ipc.server import Server
from tests.end_to_end.commands import CLOISTER, ENVIRONMENT
from tests.node.core.process.test_process import configured as written
from tests.sim.runner import FakeRunner

NAME, NUMBER, KEY = "zmustermann", "19570417", "77" * 32
PLANTED = (NAME, NUMBER, KEY)

LOG = f"""2026-11-01T10:00:00.000Z core INFO node.core.core: took {NAME} {NUMBER}
2026-11-01T10:00:01.000Z core ERROR node.core.core: {NAME} failed [KeyError at core/core.py:31]
2026-11-01T10:00:02.000Z core ERROR node.core.core: {NAME} failed [{NAME.title()} at core/core.py:31]
2026-11-01T10:00:03.000Z core ERROR node.core.core: x [KeyError at {NAME}/{NAME}.py:3]
2026-11-01T10:00:04.000Z {NAME} ERROR node.{NAME}: x [KeyError at core/core.py:31]
2026-11-01T10:00:05.000Z core {NAME.upper()} node.core.core: x
2026-11-01T10:00:06.000Z link WARNING cloister.link: x [hub_unreachable: the hub of {NAME} does not answer]
2026-11-01T10:00:07.000Z core ERROR node.core.core: [{NAME}: [{NUMBER}]]
{NAME} {NUMBER} Traceback (most recent call last): FileNotFoundError: /srv/{NAME}/{NUMBER}.dcm
{json.dumps({"time": "2026-11-01T10:00:08.000Z", "process": "intake", "level": "error", "logger": "node.intake.process",
             "message": NAME, "error": NAME.title(), "place": f"{NAME}/x.py:3"})}
{{"time": "{NAME}", "process": ["{NAME}"], "level": 3, "logger": null}}
"""  # fmt: skip


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A running node with identifiers in its configuration, folders, files, logs, journal, units and environment."""
    written(tmp_path)
    file = tmp_path / "node.toml"
    root = tmp_path / NAME / NUMBER
    root.mkdir(parents=True)
    (root / f"{NAME}.dcm").write_text(NAME)
    text = file.read_text()
    text = text.replace("[engine]\n", f'[engine]\nsocket = "unix:///run/{NAME}.sock"\nruntime = "{NAME}"\n')
    text += f'[staff]\npersons = [{{ subject = "{NAME}", public_key = "{KEY}" }}]\n'
    text += f'[images]\nregistries = ["{NAME}.example"]\n'
    before = [line for line in text.splitlines() if line.startswith("source_roots")]
    text = text.replace(before[0], f'source_roots = ["{root}"]') if before else text
    file.write_text(text if before else text + f'[intake]\nsource_roots = ["{root}"]\n')
    config = load_config(file)
    prepare_state(config)
    config.paths.logs.joinpath("core.log").write_text(LOG)
    config.paths.logs.joinpath(f"{NAME}.log").write_text(LOG)
    programs = tmp_path / "bin"
    programs.mkdir()
    units = f"Id=cloister-core.service\nActiveState=active\nSubState=running\nResult={NAME}\nNRestarts=2\n"
    units += f"ExecMainStatus={NAME}\nDescription={NAME}\n\nId=cloister-{NAME}.service\nActiveState=active\n"
    for program, says in (("systemctl", units), ("journalctl", LOG)):
        (programs / "says").mkdir(exist_ok=True)
        (programs / "says" / program).write_text(says)
        (programs / program).write_text(f"#!/bin/sh\ncat {programs}/says/{program}\n")
        (programs / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PATIENT", NAME)
    core = CoreProcess(config, FakeRunner(read_verify_key(config.paths.verdict_public_key), {}))
    core.start()
    servers: list[Server] = list(staff.servers(config, core))
    for server in servers:
        server.start()
    yield file
    for server in servers:
        server.stop()
    core.stop()


def bundle(file: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(CLOISTER), "support", "bundle", "--config", str(file), *words], capture_output=True, text=True,
        timeout=120, check=False, env=dict(ENVIRONMENT) | {"PATH": os.environ["PATH"], "PATIENT": NAME},
    )  # fmt: skip
    assert done.returncode == code, done
    return done


def assert_nothing_of_anybodys(text: str) -> None:
    for identifier in PLANTED:
        assert identifier.lower() not in text.lower(), identifier


def test_identifiers_planted_everywhere_are_not_in_the_bundle(planted: Path, tmp_path: Path) -> None:
    shown = bundle(planted)
    assert_nothing_of_anybodys(shown.stdout)
    assert str(tmp_path) not in shown.stdout, "no path"
    held: dict[str, Any] = json.loads(shown.stdout)
    # and yet it says something
    assert {"what": "core", "state": "ok"} in held["findings"] and held["counts"]["audit_records"] >= 1
    assert {"key": "intake.source_roots", "value": "(1 entries)", "from": "file"} in held["configuration"]
    assert {"key": "logging.level", "value": "info", "from": "default"} in held["configuration"]
    assert held["units"] == [
        {"unit": "cloister-core.service", "ActiveState": "active", "SubState": "running", "Result": "(other)",
         "NRestarts": 2},
    ]  # fmt: skip
    kinds = {(row["logger"], row["error"], row["place"]) for row in held["log"]}
    assert ("node.core.core", "KeyError", "core/core.py:31") in kinds and (
        "cloister.link",
        "hub_unreachable",
        "",
    ) in kinds
    assert ("(other)", "KeyError", "core/core.py:31") in kinds and (
        "node.core.core",
        "(other)",
        "core/core.py:31",
    ) in kinds


def test_without_out_nothing_is_written_and_with_it_what_was_shown(planted: Path, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    shown = bundle(planted)
    assert set(tmp_path.iterdir()) == before and "--out" in shown.stderr
    out = tmp_path / "bundle.json"
    bundle(planted, "--out", str(out))
    assert json.loads(out.read_text()).keys() == json.loads(shown.stdout).keys()
    assert_nothing_of_anybodys(out.read_text())
    out.write_text("something else")
    bundle(planted, "--out", str(out), code=2)
    assert out.read_text() == "something else"


def test_a_broken_configuration_is_said_without_a_word_of_it(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(f'site = "{NAME}"\n{NAME} = "{NUMBER}"\n')
    held = content(file)
    assert held["configuration"] == UsageFault.code and held["versions"]["python"], held
    assert_nothing_of_anybodys(json.dumps(held))


def test_a_subject_that_no_check_of_ours_has_is_not_passed_on() -> None:
    known = allowed.known_findings()
    assert {"core", "hub", "state disk", "quotas", "trust in hub", "source folder", "site", "port"} <= known
    assert {"trust in persons", "trust in reviewers", "instruction key", "witness key"} <= known
    given = [{"what": what, "state": "ok"} for what in (NAME, f"site {NAME}", "core")]
    assert [each["what"] for each in allowed.findings(given, known)] == ["(other)", "site", "core"]


@pytest.mark.parametrize(
    ("text", "kept"), [("26.1.5+dfsg1", "26.1.5"), ("6.1.0-18-amd64", "6.1.0"), (NAME, "(other)"), ("", "(other)")]
)
def test_of_a_version_the_numbers_are_kept(text: str, kept: str) -> None:
    assert allowed.version_of(text) == kept


@pytest.mark.parametrize(
    ("at", "number", "kept"),
    [
        ("2026-11-27", "17", "cli/app.py:17"),
        ("2026-11-27", NUMBER, ""),
        ("2026-11-27", "9" * 5000, ""),
        ("2026-11-27", "\u0661\u0667", ""),
        ("\u0662\u0660\u0662\u0666-11-27", "17", None),
    ],
)
def test_the_digits_of_a_log_line_are_a_lines_number_and_no_more(at: str, number: str, kept: str | None) -> None:
    line = f"{at}T09:00:00.000Z link WARNING federation.client.link: said [ValueError at cli/app.py:{number}]"
    found = list(allowed.log_lines([line]))
    assert [each["place"] for each in found] == ([] if kept is None else [kept])
