"""The hub's log: our own words, one line each, and nothing another library says, whoever made it say it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.federation.ground import ROOT, Town, found
from tests.federation.test_ingress import plain_context

# the real command in this process, beside a thread that makes other libraries talk once the hub is ready
LOUD = """
import logging, os, socket, threading, time, warnings

class Odd:
    def __del__(self):
        raise KeyError("DOE^JANE in a finalizer")

def talk():
    while True:
        try:
            socket.create_connection(("127.0.0.1", int(os.environ["INGRESS"])), 1).close()
            break
        except OSError:
            time.sleep(0.1)
    logging.getLogger("flwr").error("DOE^JANE was asked for")
    logging.getLogger("sqlalchemy.engine").error("INSERT DOE^JANE")
    try:
        raise ValueError("DOE^JANE is no number")
    except ValueError:
        logging.getLogger("aiohttp.server").exception("a request of DOE^JANE")
        logging.getLogger("cloister.hub").exception("an error nobody foresaw")
    warnings.warn("DOE^JANE in a warning")
    Odd()
    raise LookupError("DOE^JANE in a thread")

threading.Thread(target=talk, daemon=True).start()
from node.cli import main
main()
"""


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    town = found(tmp_path)
    yield town
    town.stop(signal.SIGKILL)


def test_no_text_of_another_library_reaches_the_hubs_log(town: Town, tmp_path: Path) -> None:
    environment = os.environ | {"INGRESS": str(town.config.ingress.port)}
    command = [sys.executable, "-c", LOUD, "hub", "serve", "--config", str(town.folder / "hub.toml")]
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        process = town.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=err)
        err_text = lambda: (tmp_path / "err").read_text()  # noqa: E731
        deadline = time.monotonic() + 90
        while "ready at" not in err_text() or "LookupError" not in err_text():
            assert time.monotonic() < deadline and process.poll() is None, err_text()
            time.sleep(0.1)
        # what a site sends is a stranger's text too, and aiohttp quotes it
        with (
            socket.create_connection(("127.0.0.1", town.config.ingress.port), 10) as plain,
            plain_context(town, "aachen").wrap_socket(plain, server_hostname="127.0.0.1") as stream,
        ):
            stream.sendall(b"GET /DOE^JANE HTTP/9.9.9 DOE^JANE\r\nDOE^JANE\r\n\r\n")
            assert b" 400 " in stream.recv(1 << 12)
        time.sleep(0.5)
        town.stop()
        assert process.returncode == 0
    written = (tmp_path / "out").read_text() + err_text()
    assert "DOE" not in written and "JANE" not in written and "Traceback" not in written, written
    lines = err_text().splitlines()
    form = re.compile(r"[0-9T:.-]+Z hub [A-Z]+ [a-z._]+: .+")
    assert all(form.fullmatch(line) for line in lines if not line.startswith("ready at")), written
    for said in (
        "WARNING py.warnings: (text left out)",
        "ERROR flwr: (text left out)",
        "ERROR sqlalchemy.engine: (text left out)",
        "ERROR aiohttp.server: (text left out) [ValueError at ",
        "ERROR cloister.hub: an error nobody foresaw [ValueError at ",
        "CRITICAL node: ended by KeyError",
        "CRITICAL node: ended by LookupError",
        "INFO cloister.hub: the hub listens at ",
    ):
        assert sum(said in line for line in lines) == 1, (said, written)


def test_what_flowers_own_process_says_stays_in_a_file_of_its_own(town: Town) -> None:
    town.start()
    kept = town.folder / "hub" / "superlink"
    assert (kept.stat().st_mode & 0o777, (kept / "superlink.log").stat().st_mode & 0o777) == (0o700, 0o600)
    town.stop()
    assert "flwr" not in (town.folder / "hub.log").read_text()
