"""Logs: our own words, one line each, and nothing another library says."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mediator.errors import NotNow
from node.host.logs import JsonForm, TextForm, describe

SCRIPT = """
import logging, sys, threading, warnings
from pathlib import Path
from node.host.logs import set_up
set_up("core", level="info", form=sys.argv[1], file=Path(sys.argv[2]) if len(sys.argv) > 2 else None)
log = logging.getLogger("node.test")
log.info("served round %d", 2)
log.debug("quiet")
logging.getLogger("pydicom").error("bad value DOE^JANE")
warnings.warn("DOE^JANE in a warning")
log.info("bad arguments %d", "DOE^JANE")
try:
    raise ValueError("DOE^JANE")
except ValueError:
    log.exception("reading failed")
raise KeyError("DOE^JANE")
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_text_of_another_library_reaches_the_log(form: str) -> None:
    done = run(form)
    assert done.returncode == 1
    assert "DOE" not in done.stderr + done.stdout
    assert "served round 2" in done.stderr and "quiet" not in done.stderr
    assert "ValueError" in done.stderr and "ended by KeyError" in done.stderr


def test_json_is_one_object_a_line() -> None:
    lines = [json.loads(line) for line in run("json").stderr.splitlines()]
    assert lines[0]["message"] == "served round 2" and lines[0]["process"] == "core" and lines[0]["level"] == "info"
    failed = next(line for line in lines if line["message"] == "reading failed")
    assert failed["error"] == "ValueError" and re.fullmatch(r"\S*:[0-9]+", failed["place"])


def test_what_ends_a_thread_is_told_by_its_class() -> None:
    loud = SCRIPT.replace(
        'raise KeyError("DOE^JANE")',
        """
def end():
    raise LookupError("DOE^JANE")
thread = threading.Thread(target=end)
thread.start()
thread.join()
""",
    )
    done = subprocess.run([sys.executable, "-c", loud, "text"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "ended by LookupError at" in done.stderr and "DOE" not in done.stderr


def test_a_log_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "core.log"
    assert run("text", str(path)).stderr == ""
    assert path.stat().st_mode & 0o777 == 0o600 and "served round 2" in path.read_text()


@pytest.mark.parametrize("form", [TextForm("core"), JsonForm("core")])
def test_a_line_break_cannot_forge_a_record(form: logging.Formatter) -> None:
    record = logging.LogRecord("node.x", logging.INFO, "", 1, "site %s", ("a\n2026 core INFO node: forged",), None)
    assert "\n" not in form.format(record)


def test_of_our_own_errors_the_text_is_told() -> None:
    assert describe(NotNow("busy")) == "not_now: busy"
    assert describe(ValueError("DOE^JANE")) == "ValueError"
