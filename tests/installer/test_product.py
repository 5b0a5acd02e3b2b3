"""The seam to the product as it is: what it says of units is understood, and what is written for it is read by it."""

from __future__ import annotations

import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.install import layout
from deploy.install.config_text import Facts, answered, hub_toml, node_toml
from deploy.install.gpus import Gpu
from deploy.install.machine import Machine
from deploy.install.questions import QUESTIONS
from deploy.install.talk import Fault
from deploy.install.units import units_of
from federation.hub.config import load_config as load_hub
from node.host.config import load_config as load_node
from tests.installer.ground import KEY, SENTINEL_ID

CLOISTER = Path(sys.executable).with_name("cloister")
NODE = {
    "site": ("st-anna",), "hub": ("127.0.0.1:8443",), "committee_key": (KEY,), "steward_key": ("cd" * 32, "ef" * 32),
    "source_root": ('/srv/a "strange" place', "/srv/ümlaut"), "hub_key": ("12" * 32,), "witness_key": ("34" * 32,),
}  # fmt: skip
HUB = {"name": ("north",), "host": ("hub.north.test", "192.0.2.1"), "port": ("8443",), "listen": ("::",),
       "committee_key": (KEY,)}  # fmt: skip
GPU = "GPU-5a1b0c1d-0000-1111-2222-333344445555"


def written(folder: Path, role: layout.Role, gpus: tuple[Gpu, ...] = (), memory_bytes: int = 64 << 30) -> Path:
    path = folder / f"{role}.toml"
    state = f"/var/lib/cloister/{role}"
    text = (
        node_toml(NODE, Facts(8, memory_bytes, gpus), "unix:///run/docker.sock", SENTINEL_ID, state)
        if role == "node"
        else hub_toml(HUB, state)
    )
    path.write_text(text, "utf-8")
    return path


def test_a_node_reads_what_was_written_for_it(tmp_path: Path) -> None:
    config = load_node(written(tmp_path, "node", (Gpu(GPU, 78 << 30),)))
    assert [str(path) for path in config.intake.source_roots] == list(NODE["source_root"])
    assert config.trust.hub == ("12" * 32,) and config.trust.witnesses == ("34" * 32,)
    assert config.limits.gpus == 1 and config.schedule.gpus[0].id == GPU
    assert config.limits.cpus == 7 and config.limits.memory_bytes == 32 << 30 and config.intake.workers == 4


@pytest.mark.parametrize("memory_bytes", [1 << 28, 4 << 30])
def test_a_small_machine_gets_limits_that_it_has(tmp_path: Path, memory_bytes: int) -> None:
    config = load_node(written(tmp_path, "node", memory_bytes=memory_bytes))
    assert 0 < config.limits.memory_bytes <= max(memory_bytes, 1 << 30) and config.intake.workers == 1


@pytest.mark.parametrize("role", ["node", "hub"])
def test_a_configuration_says_the_answers_that_it_was_made_of(tmp_path: Path, role: layout.Role) -> None:
    plain = tomllib.loads(written(tmp_path, role).read_text("utf-8"))
    told = answered(role, plain)
    asked = {each.name for each in QUESTIONS[role]}
    assert set(told) == asked and {name: told[name] for name in (NODE if role == "node" else HUB)} == (
        NODE if role == "node" else HUB
    )
    assert answered(role, {}) == {}, "what a file does not say is no answer"


@pytest.mark.parametrize("gib", [1, 2, 7, 16, 24, 64, 1000])
def test_as_many_jobs_at_once_as_the_machine_has_memory_for(tmp_path: Path, gib: int) -> None:
    config = load_node(written(tmp_path, "node", memory_bytes=gib << 30))
    assert config.schedule.concurrent_jobs * config.limits.memory_bytes <= gib << 30


def test_a_hub_reads_what_was_written_for_it(tmp_path: Path) -> None:
    config = load_hub(written(tmp_path, "hub"))
    assert config.ingress.hosts == list(HUB["host"]) and config.ingress.listen == "::"
    assert config.state_dir == Path("/var/lib/cloister/hub")


@pytest.fixture
def seen() -> Iterator[Path]:
    """A folder that a service would see, which none of temporary files is."""
    folder = Path(tempfile.mkdtemp(prefix="inst-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("role", ["node", "hub"])
def test_the_units_of_the_product_are_understood(seen: Path, role: layout.Role) -> None:
    units = units_of(Machine(), role, CLOISTER, written(seen, role))
    assert units.target == f"cloister-{role}.target" and units.services and units.firewall
    paths = {each.path for each in units.files}
    assert {f"{layout.UNITS}/{each}" for each in (*units.services, units.target)} <= paths
    assert units.file("sysusers.d") and all(user.startswith("cloister-") for user in units.users)
    assert all(each.mode == 0o644 for each in units.files)
    services = [each.text for each in units.files if each.path.endswith(".service")]
    assert all(f"{layout.CURRENT}/venv/bin/python" in text for text in services)


def test_what_the_product_warns_of_is_said(seen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(seen, "node")
    path.write_text(path.read_text("utf-8").replace('"127.0.0.1"', '"hub.nowhere.invalid"'), "utf-8")
    units_of(Machine(), "node", CLOISTER, path)
    assert "warning: hub.nowhere.invalid is not known here now" in capsys.readouterr().err


def test_a_configuration_that_the_product_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    path = written(tmp_path, "node")
    path.write_text(path.read_text("utf-8").replace("cpus = 7.0", "cpus = -7.0"), "utf-8")
    with pytest.raises(Fault, match="cpus") as raised:
        units_of(Machine(), "node", CLOISTER, path)
    assert raised.value.code == 2
