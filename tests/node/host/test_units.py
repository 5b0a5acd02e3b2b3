"""What is made of the table of processes: units that systemd accepts and scores, users, folders, firewall rows."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from federation.hub import config as hub_config
from mediator.errors import UsageFault
from node.cli.it.units import kept
from node.host.config import NodeConfig, load_config
from node.host.hub_systemd import HubMachine
from node.host.hub_systemd import units as hub_units
from node.host.installed import Installed
from node.host.paths import StatePaths
from node.host.processes import PROCESSES, Process, Room, named, sockets
from node.host.state import folders
from node.host.supervisor import groups_of
from node.host.systemd import Machine, units
from tests.node.host.test_config import MINIMAL

PYTHON = Path("/opt/cloister/current/venv/bin/python")
USERS = "\n[users]\n" + "\n".join(f'{name} = "cloister-{name}"' for name in ("core", "intake", "broker", "link"))
# the hospital's words: what each unit may be exposed at most, as systemd counts it
AT_MOST = {"core": 2.0, "link": 2.0, "hub": 2.0, "broker": 4.0, "intake": 4.0, "guard": 2.0}
# a process that a later version might have
WEB = Process("web", rooms=(Room("web"),), reads=("spool",), sockets=("run/web/web.sock",), reach="hub")


def machine(resolve: Sequence[str] = ("192.0.2.7", "2001:db8::7"), **given: tuple[str, ...]) -> Machine:
    return Machine(
        PYTHON, Path("/etc/cloister/node.toml"), lambda _host: resolve, resolvers=("192.0.2.53",), **given
    )  # fmt: skip


def node(tmp_path: Path, more: str = "") -> NodeConfig:
    path = tmp_path / "node.toml"
    path.write_text(MINIMAL + USERS + "\n" + more)
    return load_config(path)


def hub(tmp_path: Path, port: int = 8443) -> Installed:
    path = tmp_path / "hub.toml"
    path.write_text(
        f'version = 1\nname = "h"\nstate_dir = "/var/lib/cloister/hub"\n[ingress]\nport = {port}\n'
        f'hosts = ["hub.test"]\n[trust]\ncommittee_keys = ["{"1" * 64}"]\n'
    )
    return hub_units(hub_config.load_config(path), HubMachine(PYTHON, Path("/etc/cloister/hub.toml"), "cloister-hub"))


def text(made: Installed, name: str) -> str:
    return next(file.text for file in made.files if file.path.name == name)


def settings(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The units of a node and a hub in one folder, as `systemd-analyze` reads them."""
    folder = tmp_path_factory.mktemp("units")
    for made in (units(node(folder, "[staff]\n"), machine()), hub(folder)):
        for file in made.files:
            if file.path.suffix in (".service", ".target"):
                (folder / file.path.name).write_text(file.text)
    yield folder


@pytest.mark.parametrize("name", AT_MOST)
def test_no_unit_is_more_exposed_than_was_promised(both: Path, name: str) -> None:
    analyze = shutil.which("systemd-analyze")
    assert analyze, "deploy/lib/systemd.sh installs it"
    said = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", both / f"cloister-{name}.service"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found, said
    assert float(found[1]) <= AT_MOST[name], said


def test_systemd_understands_every_line(both: Path, tmp_path: Path) -> None:
    """With an interpreter that is there: the only thing that it may not find on this machine."""
    for path in both.glob("cloister-*.*"):
        (tmp_path / path.name).write_text(path.read_text().replace(str(PYTHON), "/usr/bin/true"))
    listed = sorted(tmp_path.glob("cloister-*"))
    assert len(listed) == 8
    command = ["systemd-analyze", "verify", "--man=no", *listed]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    about_ours = [line for line in ended.stderr.splitlines() if "cloister" in line or str(tmp_path) in line]
    assert (ended.returncode, about_ours) == (0, []), ended.stderr


def test_a_wrong_line_is_seen(both: Path, tmp_path: Path) -> None:
    """Positive control of the test above."""
    bad = (both / "cloister-core.service").read_text().replace("ProtectSystem=", "ProtectSistem=")
    (tmp_path / "cloister-core.service").write_text(bad.replace(str(PYTHON), "/usr/bin/true"))
    ended = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "cloister-core.service"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "ProtectSistem" in ended.stderr


def test_a_process_that_is_declared_is_installed(tmp_path: Path) -> None:
    """One line in the table, and it has a unit, a user, its folders, a firewall row, and its place among the others."""
    config, table = node(tmp_path), (*PROCESSES, WEB)
    made = units(config, machine(), table)
    unit = settings(text(made, "cloister-web.service"))
    assert unit["User"] == ["cloister-web"] and unit["ExecStart"][0].split()[4:7] == ["node", "process", "web"]
    assert "cloister-web.service" in made.units and "cloister-web.service" in text(made, "cloister-node.target")
    assert "cloister-web.service" in settings(text(made, "cloister-guard.service"))["Wants"][0].split()
    assert 'u cloister-web - "Cloister node, web"' in text(made, "cloister-node.conf")
    assert [row.host for row in made.firewall if row.process == "web"][:1] == [config.hub.host]
    assert any(each.path == config.paths.root / "web" and each.user == "cloister-web" for each in made.folders)
    assert config.paths.root / "run/web/web.sock" in sockets(config.paths.root, table)
    # the others are kept from its folder, and it from theirs but for what it says that it reads
    assert f"-{config.paths.root}/web" in settings(text(made, "cloister-core.service"))["InaccessiblePaths"]
    assert f"-{config.paths.root}/keys" in unit["InaccessiblePaths"]
    assert f"-{config.paths.root}/spool" in unit["ReadOnlyPaths"]


def test_a_process_that_is_declared_has_a_folder_and_is_known_by_its_user(tmp_path: Path) -> None:
    one, table = load_one_user(tmp_path), (*PROCESSES, WEB)
    assert any(each.path == one.paths.root / "web" for each in folders(one, processes=table))
    assert groups_of(one, "web", table) == groups_of(one, "link")
    separate = node(tmp_path)
    assert separate.users.user_of(WEB) == "cloister-web"
    own = separate.users.model_copy(
        update={name: 64101 + n for n, name in enumerate(("core", "intake", "broker", "link"))}
    )
    with pytest.raises(UsageFault, match="there is no system user cloister-web"):
        own.accounts(table)


def load_one_user(tmp_path: Path) -> NodeConfig:
    path = tmp_path / "one.toml"
    path.write_text(MINIMAL)
    return load_config(path)


def test_the_table_names_the_sockets_that_the_processes_are_known_by(tmp_path: Path) -> None:
    paths = StatePaths(tmp_path)
    assert {paths.broker_socket, paths.link_socket, paths.intake_socket, paths.staff_socket("auditor")} <= set(
        paths.sockets
    )
    with pytest.raises(UsageFault, match="no process web"):
        named("web")


def test_core_and_intake_have_no_network_and_the_link_only_the_hubs_address(tmp_path: Path) -> None:
    made = units(node(tmp_path), machine())
    for name in ("core", "intake", "broker", "guard"):
        unit = settings(text(made, f"cloister-{name}.service"))
        assert (unit["PrivateNetwork"], unit["RestrictAddressFamilies"]) == (["yes"], ["AF_UNIX"]), name
    link = settings(text(made, "cloister-link.service"))
    assert link["IPAddressDeny"] == ["any"] and "PrivateNetwork" not in link
    assert link["IPAddressAllow"] == ["192.0.2.7 2001:db8::7 192.0.2.53"]
    assert made.warnings == ()


def test_a_hub_that_is_an_address_needs_no_resolver(tmp_path: Path) -> None:
    config = node(tmp_path)
    config = config.model_copy(update={"hub": config.hub.model_copy(update={"host": "198.51.100.4"})})
    made = units(config, machine(()))
    assert settings(text(made, "cloister-link.service"))["IPAddressAllow"] == ["198.51.100.4"]
    assert [(row.direction, row.host, row.port) for row in made.firewall] == [("out", "198.51.100.4", config.hub.port)]


def test_a_name_that_nobody_knows_opens_nothing_and_is_said(tmp_path: Path) -> None:
    made = units(node(tmp_path), machine(()))
    assert settings(text(made, "cloister-link.service"))["IPAddressAllow"] == ["192.0.2.53"]
    assert "is not known here now" in made.warnings[0]
    named_by_hand = units(node(tmp_path), machine((), hub=("203.0.113.9",)))
    assert named_by_hand.warnings == ()
    assert "203.0.113.9" in settings(text(named_by_hand, "cloister-link.service"))["IPAddressAllow"][0]


def test_a_name_that_nobody_knows_now_keeps_the_addresses_it_had(tmp_path: Path) -> None:
    before = machine(("2001:db8::7", "192.0.2.7"))
    unit = tmp_path / "cloister-link.service"
    unit.write_text(text(units(node(tmp_path), before), unit.name))
    made = units(node(tmp_path), machine((), kept=tuple(kept(unit))))
    assert text(made, unit.name) == unit.read_text()
    assert "keeps the addresses it had (192.0.2.7, 2001:db8::7)" in made.warnings[0]
    nobody = units(node(tmp_path), machine((), kept=("192.0.2.1", "192.0.2.53")))
    assert "reach nobody" in nobody.warnings[0] and list(kept(tmp_path / "none")) == []


def test_the_order_of_a_name_servers_answer_is_no_other_unit(tmp_path: Path) -> None:
    one, other = (
        units(node(tmp_path), machine(each)) for each in (("192.0.2.8", "192.0.2.7"), ("192.0.2.7", "192.0.2.8"))
    )
    assert one.files == other.files


def test_no_row_of_a_nodes_is_inbound_and_a_hub_has_one(tmp_path: Path) -> None:
    assert {row.direction for row in units(node(tmp_path), machine()).firewall} == {"out"}
    made = hub(tmp_path)
    assert [(row.direction, row.port) for row in made.firewall] == [("in", 8443)]
    unit = settings(text(made, "cloister-hub.service"))
    assert (unit["SocketBindAllow"], unit["SocketBindDeny"]) == (["tcp:8443"], ["any"])


def test_only_a_hub_below_port_1024_keeps_a_right_of_roots(tmp_path: Path) -> None:
    assert settings(text(hub(tmp_path), "cloister-hub.service"))["CapabilityBoundingSet"] == [""]
    low = settings(text(hub(tmp_path, 443), "cloister-hub.service"))
    assert low["CapabilityBoundingSet"] == low["AmbientCapabilities"] == ["CAP_NET_BIND_SERVICE"]


def test_no_secret_is_in_a_unit_and_the_databases_is_handed_over(tmp_path: Path) -> None:
    secret = tmp_path / "database.url"
    secret.write_text("postgresql://core:hunter2@db/node")
    path = tmp_path / "node.toml"
    path.write_text(f'database = "file:{secret}"\n{MINIMAL}{USERS}')
    made = units(load_config(path), machine())
    core = settings(text(made, "cloister-core.service"))
    assert core["LoadCredential"] == [f"database:{secret}"]
    assert not any("hunter2" in file.text for file in made.files)
    assert not any("LoadCredential" in text(made, f"cloister-{each}.service") for each in ("link", "intake", "broker"))


def test_a_secret_in_a_folder_of_cores_is_not_read_as_root(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    root = load_one_user(tmp_path).paths.root
    path.write_text(f'database = "file:{root}/core/url"\n{MINIMAL}{USERS}')
    assert "LoadCredential" not in text(units(load_config(path), machine()), "cloister-core.service")


def test_core_reads_the_secret_that_was_handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "database").write_text("sqlite:////given\n")
    path = tmp_path / "node.toml"
    path.write_text(f'database = "file:{tmp_path}/not-there"\n{MINIMAL}')
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "given"))
    assert load_config(path).database_url() == "sqlite:////given"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(UsageFault, match="cannot read the secret"):
        load_config(path).database_url()


def test_every_process_is_bound_to_the_guard_and_the_broker_ends_last(tmp_path: Path) -> None:
    made = units(node(tmp_path), machine())
    for process in PROCESSES:
        unit = settings(text(made, process.unit))
        assert unit["BindsTo"] == ["cloister-guard.service"] and unit["Restart"] == ["always"]
        assert ("cloister-broker.service" in unit["After"][0]) == (process.name != "broker")
        assert unit["Type"] == ["notify"] and unit["WatchdogSec"] == [str(process.watchdog_s)]
        assert unit["MemoryMax"][0].isdigit() and unit["LimitCORE"] == ["0"] and unit["NoNewPrivileges"] == ["yes"]
    assert settings(text(made, "cloister-core.service"))["RestartPreventExitStatus"] == ["4"]
    assert settings(text(made, "cloister-guard.service"))["RestartPreventExitStatus"] == ["2 3 4 5"]


def test_each_process_sees_of_the_state_folder_what_it_needs(tmp_path: Path) -> None:
    config = node(tmp_path)
    made, root = units(config, machine()), config.paths.root

    def seen(name: str, setting: str) -> set[str]:
        found = settings(text(made, f"cloister-{name}.service")).get(setting, [])
        return {each.removeprefix(f"-{root}/") for each in found}

    assert seen("core", "InaccessiblePaths") == {"logs", "supervisor", "broker", "intake", "link"}
    assert seen("core", "ReadOnlyPaths") == {"handover"}
    assert seen("link", "ReadOnlyPaths") == {"run", "spool"}
    assert {"keys", "audit", "datasets", "intake", "handover", "core", "work"} <= seen("link", "InaccessiblePaths")
    assert {"core", "keys", "datasets", "releases", "link", "spool", "work"} <= seen("intake", "InaccessiblePaths")
    assert {"core", "keys", "datasets", "intake", "handover", "link"} <= seen("broker", "InaccessiblePaths")


def test_memory_grows_with_the_workers_and_sources_are_only_read(tmp_path: Path) -> None:
    intake = named("intake")
    config = node(tmp_path, '[intake]\nworkers = 4\nsource_roots = ["/srv/pacs", "/home/import"]\n')
    unit = settings(text(units(config, machine()), "cloister-intake.service"))
    assert unit["MemoryMax"] == [str(intake.memory_bytes + 4 * intake.memory_per_worker_bytes)]
    assert {"-/srv/pacs", "-/home/import"} <= set(unit["ReadOnlyPaths"])
    assert (unit["ProtectHome"], unit["BindReadOnlyPaths"]) == (["tmpfs"], ["-/home/import"])


STRANGE = (
    "/home/pacs/My Export",
    "/srv/100%done",
    "/srv/a:b",
    "/srv/a;b",
    '/srv/a "b" c',
    "/srv/it's",
    "/srv/$x",
    "/srv/ü",
)


def test_a_folder_with_a_strange_name_is_named_in_the_unit_as_systemd_reads_it(tmp_path: Path) -> None:
    roots = ", ".join(json.dumps(each, ensure_ascii=False) for each in STRANGE)
    unit = text(units(node(tmp_path, f"[intake]\nsource_roots = [{roots}]\n"), machine()), "cloister-intake.service")
    named = settings(unit)
    assert named["BindReadOnlyPaths"] == ['"-/home/pacs/My Export"']
    assert named["ReadOnlyPaths"][-len(STRANGE) :] == [
        '"-/home/pacs/My Export"', "-/srv/100%%done", '"-/srv/a:b"', "-/srv/a;b", '"-/srv/a \\"b\\" c"',
        '"-/srv/it\'s"', "-/srv/$x", "-/srv/ü",
    ]  # fmt: skip
    (tmp_path / "cloister-intake.service").write_text(unit.replace(str(PYTHON), "/usr/bin/true"))
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "cloister-intake.service"],
        capture_output=True, text=True, check=False,
    ).stderr  # fmt: skip
    assert not re.search(r"\.service:\d+:", said), said


@pytest.mark.parametrize(
    "more", ['[intake]\nsource_roots = ["/srv/a\\nUser=root"]\n', '[intake]\nsource_roots = ["/srv/a "]\n']
)
def test_a_name_that_no_unit_can_hold_is_refused(tmp_path: Path, more: str) -> None:
    with pytest.raises(UsageFault, match="no unit can name"):
        units(node(tmp_path, more), machine())


def test_a_secret_with_a_strange_name_is_handed_over_by_it(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text(f'database = "file:/etc/my 100%.url"\n{MINIMAL}{USERS}')
    made = units(load_config(path), machine())
    assert settings(text(made, "cloister-core.service"))["LoadCredential"] == ["database:/etc/my 100%%.url"]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"python": Path("/root/venv/bin/python")}, "where a service sees nothing"),
        ({"config_file": Path("/home/a/node.toml")}, "where a service sees nothing"),
        ({"config_file": Path("/etc/my node.toml")}, "a meaning in a unit"),
    ],
)
def test_what_the_services_could_not_see_is_refused(tmp_path: Path, changed: dict[str, Path], why: str) -> None:
    with pytest.raises(UsageFault, match=why):
        units(node(tmp_path), replace(machine(), **changed))  # type: ignore[arg-type]


def test_a_node_under_one_user_is_no_service(tmp_path: Path) -> None:
    with pytest.raises(UsageFault, match="a system user for each process"):
        units(load_one_user(tmp_path), machine())


def test_system_users_are_made_with_the_staffs_groups(tmp_path: Path) -> None:
    made = units(node(tmp_path, '[staff]\nit_admin = "hospital-it"\nauditor = 64990\n'), machine())
    lines = text(made, "cloister-node.conf").splitlines()
    # a number that nobody has named is given a name, without which no unit could be given it
    assert "g hospital-it -" in lines and "g cloister-auditor 64990" in lines
    core = next(each for each in made.users if each.process == "core")
    assert core.groups == ("cloister-link", "cloister-intake", "hospital-it", "64990", "65532")


@pytest.mark.parametrize(
    ("socket", "shown"),
    [("/run/user/1007/podman/podman.sock", "/run/user/1007/podman"), ("/run/user/1007/docker.sock", None)],
)
def test_a_users_own_engine_is_up_before_the_broker_which_sees_of_that_user_its_socket_alone(
    tmp_path: Path, socket: str, shown: str | None
) -> None:
    config = node(tmp_path)
    engine = config.engine.model_copy(update={"socket": f"unix://{socket}"})
    users = config.users.model_copy(update={"broker": "engine"})
    made = units(config.model_copy(update={"engine": engine, "users": users}), machine())
    unit = settings(text(made, "cloister-broker.service"))
    assert unit["User"] == ["engine"] and unit["ProtectHome"] == ["tmpfs"]
    assert unit["BindReadOnlyPaths"] == [f"-{shown or socket}"]
    for setting in ("Wants", "After", "PartOf"):
        assert "user@1007.service" in unit[setting], setting
    assert not any("user@" in text(made, f"cloister-{name}.service") for name in ("core", "intake", "link", "guard"))


def test_the_systems_engine_needs_no_users_services(tmp_path: Path) -> None:
    assert "user@" not in text(units(node(tmp_path), machine()), "cloister-broker.service")
