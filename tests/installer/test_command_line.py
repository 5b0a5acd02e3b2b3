"""`install.sh` as a person runs it: from a signed bundle, killed in the middle, with what is wrong from outside."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from deploy.install import layout
from deploy.install.machine import Machine
from deploy.install.main import install_from, parser
from deploy.install.sources import checkout, from_checkout
from deploy.install.talk import Fault
from deploy.release.keys import SigningKey
from tests.installer.ground import ANSWERS, HUB_ANSWERS, SENTINEL_ID, running, snapshot
from tests.installer.packed import bundle
from tests.release.making import new_key

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="an installer is root's")

RUN = Path(__file__).parents[2] / "deploy" / "install" / "run.py"
PYTHON = f"cp{sys.version_info[0]}{sys.version_info[1]}"
KEY = new_key("The test's release key")


def install(machine: Machine, *words: str | Path, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-B", RUN, *words, "--root", machine.root], capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL, timeout=240, env={"PATH": os.environ["PATH"], **extra},
    )  # fmt: skip


def made(machine: Machine, tmp_path: Path, version: str = "0.2.0", key: SigningKey = KEY, arch: str = "x86_64") -> Path:
    return bundle(tmp_path, machine.root, key, version, PYTHON, arch)


@pytest.fixture
def trusted(tmp_path: Path) -> Path:
    path = tmp_path / "release.pub"
    line = KEY.private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    path.write_text(f"{line} {KEY.public.name}\n")
    return path


@pytest.mark.slow
def test_from_one_signed_file_to_a_node_and_another_version_and_away(
    machine: Machine, tmp_path: Path, trusted: Path
) -> None:
    before = snapshot(machine.root)
    first, second = made(machine, tmp_path), made(machine, tmp_path, "0.3.0")
    done = install(machine, "node", "--bundle", first, "--release-key", trusted, *ANSWERS)
    assert done.returncode == 0, done.stderr
    assert "signed by The test's release key (SHA256:" in done.stderr
    assert f'sentinel = "{SENTINEL_ID}"' in machine.text(layout.configuration("node"))
    assert "cloister-core.service" in running(machine)
    done = install(machine, "upgrade", "--bundle", second, "--release-key", trusted)
    assert done.returncode == 0, done.stderr
    assert os.readlink(machine.at(layout.CURRENT)) == "0.3.0"
    assert install(machine, "rollback").returncode == 0
    assert os.readlink(machine.at(layout.CURRENT)) == "0.2.0"
    done = install(machine, "upgrade", "--bundle", first, "--release-key", trusted)
    assert done.returncode == 0 and "nothing to do" in done.stderr
    assert install(machine, "uninstall", "--destroy-data").returncode == 2  # nobody there to confirm it
    assert install(machine, "uninstall", "--destroy-data", "--yes").returncode == 0
    left = {name for name in set(snapshot(machine.root)) - set(before) if "cloister-destruction-" not in name}
    assert left == set()


@pytest.mark.slow
@pytest.mark.parametrize("at", ["systemd-sysusers", "systemctl start"])
def test_a_run_that_was_killed_is_taken_back_by_the_next(
    machine: Machine, tmp_path: Path, trusted: Path, at: str
) -> None:
    package = made(machine, tmp_path)
    before = snapshot(machine.root)
    machine.at("/fake/kill").write_text(at)
    done = install(machine, "node", "--bundle", package, "--release-key", trusted, *ANSWERS)
    assert done.returncode == -9 and machine.at(layout.JOURNAL).exists()
    done = install(machine, "uninstall", "--keep-data")  # any run will do, and this one has nothing to take away
    assert "cut off after" in done.stderr and "nothing is installed here" in done.stderr
    assert snapshot(machine.root) == before
    machine.at("/fake/kill").write_text(at)
    install(machine, "node", "--bundle", package, "--release-key", trusted, *ANSWERS)
    assert install(machine, "node", "--bundle", package, "--release-key", trusted, *ANSWERS).returncode == 0
    assert "cloister-core.service" in running(machine)


@pytest.mark.slow
def test_an_upgrade_that_was_killed_is_taken_back_and_the_old_version_runs(
    machine: Machine, tmp_path: Path, trusted: Path
) -> None:
    first, second = made(machine, tmp_path), made(machine, tmp_path, "0.3.0")
    assert install(machine, "node", "--bundle", first, "--release-key", trusted, *ANSWERS).returncode == 0
    machine.at("/fake/kill").write_text("systemctl start")
    assert install(machine, "upgrade", "--bundle", second, "--release-key", trusted).returncode == -9
    done = install(machine, "node", "--bundle", first, "--release-key", trusted)
    assert done.returncode == 0 and "cut off after" in done.stderr, done.stderr
    assert os.readlink(machine.at(layout.CURRENT)) == "0.2.0" and "cloister-core.service" in running(machine)
    assert not machine.at("/opt/cloister/0.3.0").exists() and not machine.at("/fake/paused").exists()


@pytest.mark.parametrize(
    ("what", "code", "says"),
    [("changed", 4, "error: "), ("stranger", 4, "error: "), ("other", 2, "aarch64"), ("missing", 2, "error: ")],
)
def test_a_bundle_that_is_not_to_be_used_changes_nothing(
    machine: Machine, tmp_path: Path, trusted: Path, what: str, code: int, says: str
) -> None:
    key = new_key("Nobody") if what == "stranger" else KEY
    package = made(machine, tmp_path, key=key, arch="aarch64" if what == "other" else "x86_64")
    if what == "changed":
        raw = bytearray(package.read_bytes())
        raw[len(raw) // 2] ^= 1
        package.write_bytes(raw)
    if what == "missing":
        package.unlink()
    before = snapshot(machine.root)
    done = install(machine, "node", "--bundle", package, "--release-key", trusted, *ANSWERS)
    assert done.returncode == code and says in done.stderr, done
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert snapshot(machine.root) == before


def test_a_port_in_use_is_told_and_changes_nothing(machine: Machine, tmp_path: Path, trusted: Path) -> None:
    package = made(machine, tmp_path)
    before = snapshot(machine.root)
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        words = [port if word == "18443" else word for word in HUB_ANSWERS]
        done = install(machine, "hub", "--bundle", package, "--release-key", trusted, *words)
        table = install(machine, "hub", "--check", "--port", port)
    assert done.returncode == 5 and f"{port} is not free" in done.stderr
    assert table.returncode == 5 and "failed   port" in table.stdout
    assert snapshot(machine.root) == before


def test_what_is_not_answered_is_named_and_changes_nothing(machine: Machine, tmp_path: Path, trusted: Path) -> None:
    package = made(machine, tmp_path)
    before = snapshot(machine.root)
    done = install(machine, "node", "--bundle", package, "--release-key", trusted, "--site", "st-anna")
    assert done.returncode == 2
    assert "error: not answered: --hub, --committee-key, --steward-key, --source-root" in done.stderr
    assert snapshot(machine.root) == before


@pytest.mark.parametrize(
    ("text", "says"),
    [('site = "st-anna"\nhub = "127.0.0.1:9', "is not TOML"), ('sites = "st-anna"', "unknown answer sites"),
     ('hub = "127.0.0.1"', "--hub: HOST:PORT"), ('site = "st-anna"', "not answered: --hub")],
)  # fmt: skip
def test_a_slip_in_the_answers_is_told_before_the_bundle_is_read(
    machine: Machine, tmp_path: Path, text: str, says: str
) -> None:
    answers = tmp_path / "answers.toml"
    answers.write_text(text)
    done = install(machine, "node", "--bundle", tmp_path / "no.bundle", "--answers", answers)
    assert done.returncode == 2 and says in done.stderr and "bundle" not in done.stderr, done


def test_the_check_counts_what_a_bundle_brings(bare: Machine, tmp_path: Path, trusted: Path) -> None:
    """On a server that has nothing yet: without a bundle it is told of one, with it only what is still missing."""
    before = snapshot(bare.root)
    alone = install(bare, "node", "--check")
    assert alone.returncode == 5 and "a bundle that brings one: --bundle" in alone.stdout
    words = ("node", "--check", "--release-key", trusted, "--bundle")
    without = bundle(tmp_path / "a", bare.root, KEY, "0.2.0", PYTHON)
    done = install(bare, *words, without)
    assert done.returncode == 5 and "failed   engine" in done.stdout and "--bundle" not in done.stdout
    done = install(bare, *words, bundle(tmp_path / "b", bare.root, KEY, "0.2.0", PYTHON, debs=("docker.io",)))
    assert done.returncode == 0, done
    assert "none yet; the bundle brings docker.io" in done.stdout and "signed by The test's release key" in done.stderr
    assert install(bare, "node", "--check", "--bundle", without).returncode == 4, "a stranger's brings nothing"
    assert snapshot(bare.root) == before


@pytest.mark.parametrize(
    ("proxy", "says"),
    [("http://user:s3cret@127.0.0.1:9", "through the proxy"), ("", "package index cannot be reached")],
)
def test_an_index_that_is_not_reached_is_told_without_the_proxys_password(
    machine: Machine, proxy: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = checkout()
    assert top is not None
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, proxy)
    monkeypatch.setenv("PIP_INDEX_URL", "https://127.0.0.1:9/simple" if not proxy else "https://index.test/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    before = snapshot(machine.root)
    with pytest.raises(Fault, match=says) as raised:
        install_from(machine, parser().parse_args(["node", *ANSWERS]), from_checkout(top), None)
    assert "s3cret" not in raised.value.message + raised.value.hint
    assert snapshot(machine.root) == before


@pytest.mark.parametrize("words", [["nod"], ["node", "--sit", "x"], ["uninstall"], ["upgrade", "extra"], []])
def test_a_slip_is_told_and_changes_nothing(machine: Machine, words: list[str]) -> None:
    before = snapshot(machine.root)
    done = install(machine, *words)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "hint: " in done.stderr, done
    assert "WORD" not in done.stderr
    assert snapshot(machine.root) == before


def test_two_runs_at_once_do_not_meet(machine: Machine) -> None:
    import fcntl

    with machine.at(layout.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = install(machine, "uninstall", "--keep-data")
    assert done.returncode == 5 and "another installation is running" in done.stderr
