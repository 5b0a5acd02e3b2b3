"""What is known against the packages we depend on is found, and told; that nobody could be asked is never "nothing"."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements" / "cloister.txt"
KNOWN = {
    "id": "TEST-1",
    "summary": "a reader that can be made to read too much",
    "affected": [
        {
            "package": {"name": "pydicom", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}],
        }
    ],
}


class Advisories(BaseHTTPRequestHandler):
    """Answers as OSV does: one known vulnerability, in pydicom where `known` has it."""

    known: set[str] = set()

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps({"vulns": [KNOWN]} if asked["package"]["name"] in self.known else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Advisories, "known", set())
    server = ThreadingHTTPServer(("127.0.0.1", 0), Advisories)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def ask(*more: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [ROOT / "deploy/lib/advisories.sh", *more],
        env={**os.environ, "PATH": path, "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_every_package_of_the_lock_is_asked_about_and_stands_in_the_bill_of_materials(service: str) -> None:
    done = ask(str(LOCK), "-s", "osv", "--osv-url", service)
    assert done.returncode == 0, done.stderr
    listed = {(one["name"], one["version"]) for one in json.loads(done.stdout)["components"]}
    locked = re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+) \\$", LOCK.read_text(), re.MULTILINE)  # without a condition
    assert len(locked) > 80 and set(locked) <= listed


def test_what_is_known_is_told_and_is_an_error(service: str) -> None:
    Advisories.known = {"pydicom"}
    done = ask(str(LOCK), "-s", "osv", "--osv-url", service)
    assert done.returncode == 1 and "1 known vulnerability" in done.stderr
    assert [one["id"] for one in json.loads(done.stdout)["vulnerabilities"]] == ["TEST-1"]


def test_that_nobody_answers_is_not_that_nothing_is_known() -> None:
    done = ask(str(LOCK), "-s", "osv", "--osv-url", "http://127.0.0.1:1/")
    assert done.returncode == 5 and not done.stdout and "error: no answer" in done.stderr


def test_without_a_lock_it_is_said_how_it_is_used(tmp_path: Path) -> None:
    done = ask(str(tmp_path / "none.txt"))
    assert done.returncode == 2 and "requirements/cloister.txt" in done.stderr
