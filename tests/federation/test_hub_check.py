"""`cloister hub check` on a real hub: while it runs, when it does not, and with each thing broken."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from federation.hub.certificates import ALARM
from federation.hub.config import load_config
from federation.hub.database import note
from federation.hub.state import HubState
from mediator.canonical import print_time
from node.cli.coordinator import check
from node.cli.coordinator.check import findings
from tests.federation.ground import Town, found, free_port
from tests.sim.users import NOBODY

EXAMPLE = Path(__file__).parents[2] / "deploy" / "hub.example.toml"


def said(config: Path) -> dict[str, dict[str, Any]]:
    return {each["what"]: each for each in findings(config)}


@pytest.fixture
def still(tmp_path: Path) -> Path:
    """The configuration of a hub that does not run."""
    (tmp_path / "still").mkdir()
    town = found(tmp_path / "still")
    town.hub.close()
    return town.folder / "hub.toml"


async def test_a_running_hub_is_in_order_and_says_which_sites_it_hears(town: Town) -> None:
    core = town.core("aachen")
    async with town.links(core):
        while not core.connected:
            await asyncio.sleep(0.05)
        seen = said(town.folder / "hub.toml")
    for what in ("configuration", "committee key", "state folder", "instruction key", "witness key", "port",
                 "certificate authority", "server certificate", "Flower", "site aachen", "alarms"):  # fmt: skip
        assert seen[what]["state"] == "ok", seen[what]
    assert seen["site bergen"]["detail"] == "never heard of" and seen["site bergen"]["state"] == "warning"


def test_a_hub_that_does_not_run_has_its_port_free(still: Path) -> None:
    seen = said(still)
    assert (seen["port"]["state"], seen["Flower"]["state"]) == ("warning", "unknown")
    assert "cloister hub serve" in seen["port"]["mend"]


@contextmanager
def taken(config: Path) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", load_config(config).ingress.port)):
        yield


def test_somebody_else_at_the_hubs_port(still: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_PATIENCE_S", 0.2)
    with taken(still):
        found = said(still)["port"]
    assert found["state"] == "missing" and "not by this hub" in found["detail"]


def test_another_hub_at_this_hubs_port(town: Town, still: Path) -> None:
    here, there = (load_config(each).ingress.port for each in (still, town.folder / "hub.toml"))
    still.write_text(still.read_text().replace(f"port = {here}", f"port = {there}"))
    found = said(still)["port"]
    assert found["state"] == "missing" and "somebody else" in found["detail"]


@pytest.mark.parametrize("name", ["instruction", "witness"])
def test_a_key_that_is_gone_or_open(still: Path, name: str) -> None:
    key = still.parent / "hub" / "keys" / f"{name}.key"
    key.chmod(0o644)
    assert "chmod 600" in said(still)[f"{name} key"]["mend"]
    key.unlink()
    found = said(still)[f"{name} key"]
    assert found["state"] == "missing" and "backup" in found["mend"]


def test_a_state_folder_that_is_absent_empty_or_open_to_others(still: Path) -> None:
    folder = still.parent / "hub"
    folder.chmod(0o755)
    assert said(still)["state folder"]["mend"] == f"chmod 700 {folder}"
    shutil.rmtree(folder)
    assert said(still)["state folder"]["mend"] == "cloister hub init"
    folder.mkdir(mode=0o700)
    assert "holds no hub" in said(still)["state folder"]["detail"]


def test_the_example_is_not_in_order(tmp_path: Path) -> None:
    shutil.copyfile(EXAMPLE, tmp_path / "hub.toml")
    seen = [each for each in findings(tmp_path / "hub.toml") if each["what"] == "placeholder"]
    assert [each["detail"].split()[0] for each in seen] == ["name", "ingress.hosts:", "trust.committee_keys"]


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_root_who_looks_leaves_nothing_of_roots_in_anothers_state_folder() -> None:
    home = Path(tempfile.mkdtemp(prefix="cl-"))  # others may pass it
    home.chmod(0o755)
    found(home).hub.close()
    folder = home / "hub"
    for each in (folder, *folder.rglob("*")):
        os.chown(each, NOBODY, NOBODY)
    assert said(home / "hub.toml")["port"]["state"] == "warning" and os.geteuid() == 0
    assert {each.stat().st_uid for each in (folder, *folder.rglob("*"))} == {NOBODY}
    shutil.rmtree(home)


@pytest.mark.parametrize(("name", "what"), [("ca.crt", "certificate authority"), ("server.crt", "server certificate")])
def test_a_certificate_that_is_gone_or_none(still: Path, name: str, what: str) -> None:
    path = still.parent / "hub" / "pki" / name
    for spoil in (lambda: path.write_bytes(b"\xff"), path.unlink):
        spoil()
        seen = said(still)
        assert seen[what]["state"] == "missing" and "backup" in seen[what]["mend"]
        assert seen["port"]["state"] == "warning" and "alarms" in seen


def test_a_name_that_the_certificate_does_not_have(still: Path) -> None:
    still.write_text(still.read_text().replace('hosts = ["127.0.0.1"]', 'hosts = ["hub.new.example"]'))
    found = said(still)["server certificate"]
    assert found["state"] == "missing" and "restart" in found["mend"]


@pytest.mark.parametrize(
    ("age_days", "what", "state"),
    [(3400, "certificate authority", "warning"), (3660, "certificate authority", "missing"),
     (345, "server certificate", "warning"), (370, "server certificate", "missing")],
)  # fmt: skip
def test_the_days_of_the_authority(tmp_path: Path, age_days: int, what: str, state: str) -> None:
    port = free_port()
    (tmp_path / "hub.toml").write_text(
        f'version = 1\nname = "hub"\nstate_dir = "hub"\n[ingress]\nport = {port}\nhosts = ["127.0.0.1"]\n'
        f'listen = "127.0.0.1"\n[trust]\ncommittee_keys = ["{"ab" * 32}"]\n'
    )
    config = load_config(tmp_path / "hub.toml")
    HubState.create(config, lambda: datetime.now(UTC) - timedelta(days=age_days)).close()
    assert said(tmp_path / "hub.toml")[what]["state"] == state


@pytest.mark.parametrize(
    ("changes", "state", "word"),
    [
        ({}, "ok", "0.5 h ago"), ({"connected": timedelta(hours=2)}, "warning", "2.0 h ago"),
        ({"certificate_expires": timedelta(days=-4)}, "warning", "not renewed"),
        ({"certificate_expires": timedelta(days=1)}, "warning", "expired"),
        ({"witness_refused": timedelta(days=1)}, "missing", "not witnessed"),
    ],
)  # fmt: skip
def test_a_site_that_is_silent_or_not_well(changes: dict[str, timedelta], state: str, word: str) -> None:
    now = datetime.now(UTC)
    ago = {"connected": timedelta(minutes=30), "certificate_expires": timedelta(days=-20)} | changes
    row = {"site": "north", "witness_refused": None} | {key: print_time(now - value) for key, value in ago.items()}
    found = check._site(row, now)
    assert found["state"] == state and word in found["detail"], found


def test_a_public_half_that_is_not_the_keys(still: Path) -> None:
    path = still.parent / "hub" / "keys" / "witness.pub"
    path.write_text("not a key\n")
    seen = said(still)["witness key"]
    assert seen["state"] == "warning" and str(path) in seen["detail"] and "backup" in seen["mend"]


def test_an_address_that_is_not_this_machines(still: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_PATIENCE_S", 0.2)
    still.write_text(still.read_text().replace('listen = "127.0.0.1"', 'listen = "192.0.2.1"'))
    seen = said(still)["port"]
    assert seen["state"] == "missing" and "cannot listen at 192.0.2.1" in seen["detail"]


def test_a_database_that_is_damaged_is_the_last_line(still: Path) -> None:
    path = still.parent / "hub" / "hub.db"
    path.write_bytes(b"\0" * path.stat().st_size)
    seen = said(still)
    assert seen["database"]["state"] == "missing" and "backup" in seen["database"]["mend"] and "port" not in seen


def test_a_hub_that_has_enrolled_nobody_and_one_whose_sites_were_revoked(still: Path) -> None:
    hub = HubState(load_config(still))
    for row in hub.nodes():
        hub.revoke(row["site"])
    hub.close()
    seen = said(still)
    assert "cloister hub node approve" in seen["sites"]["mend"] and not any(each.startswith("site ") for each in seen)
    assert seen["alarms"]["state"] == "ok"


def test_an_alarm_about_a_site_is_told_until_that_is_enrolled_anew(still: Path) -> None:
    hub = HubState(load_config(still))
    site = next(row["site"] for row in hub.nodes())
    now = datetime.now(UTC)
    with hub.database.write() as session:
        note(session, now, site, "node_connect", "certificate 7", ALARM, "certificate_replaced")
    hub.close()
    seen = said(still)["alarms"]
    assert seen["state"] == "missing" and seen["detail"] == f"1 about {site}" and "telephone" in seen["mend"]


def test_flowers_process_that_is_gone_while_the_hub_answers(tmp_path: Path) -> None:
    assert check._flower(tmp_path / "superlink.sock", runs=True)["state"] == "missing"
    with socket.socket(socket.AF_UNIX) as left:  # bound and never listened at: what a process that died leaves
        left.bind(str(tmp_path / "superlink.sock"))
        seen = check._flower(tmp_path / "superlink.sock", runs=True)
    assert seen["state"] == "missing" and "superlink.log" in seen["mend"]
