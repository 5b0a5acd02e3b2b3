"""The supervisor with real processes: started as who they are, started again, and never left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mediator.errors import NotNow, UsageFault
from node.host.config import NodeConfig
from node.host.state import prepare_state
from node.host.supervisor import Supervisor, groups_of, is_ready, only_one
from tests.node.host.test_state import IDS, config_in

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="starts processes as other users")

# A child: serves its sockets, says who it is, and does what a file named for its role tells it.
CHILD = """
import os, signal, socket, subprocess, sys, time
role, orders, state = sys.argv[1:4]
names = {"broker": ["broker/broker"], "core": ["link", "intake", "it_admin", "data_steward", "auditor"]}
held = []
for name in names.get(role, []):
    path = f"{state}/run/{name}.sock"
    if os.path.exists(path):
        os.unlink(path)
    held.append(socket.socket(socket.AF_UNIX))
    held[-1].bind(path)
    held[-1].listen()
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines() if ":" in line)
print("who", os.getpid(), os.getuid(), os.getgid(), sorted(os.getgroups()), status["NoNewPrivs"].strip(), flush=True)
print("environment", sorted(os.environ), "umask", oct(os.umask(0)), "cwd", os.getcwd(), flush=True)
def told(*_):
    print("told: the state folder changed", flush=True)
    sys.exit(0)

if role == "core":
    signal.signal(signal.SIGUSR1, told)
order = open(f"{orders}/{role}").read() if os.path.exists(f"{orders}/{role}") else ""
if order == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if order == "grandchild":
    print("grandchild", subprocess.Popen(["sleep", "600"]).pid, flush=True)
if order == "die":
    sys.exit(7)
while True:
    time.sleep(0.1)
"""

DRIVER = """
import sys
from pathlib import Path
from node.host.config import load_config
from node.host.logs import set_up
from node.host import supervisor
from node.host.processes import PROCESSES, Process, Room
config, child, orders = (Path(text) for text in sys.argv[1:4])
set_up("supervisor", level="info", form="text")
loaded = load_config(config)
command = lambda role: ["/usr/bin/python3", "-I", str(child), role, str(orders), str(loaded.state_dir)]
more = tuple(Process(name, rooms=(Room(name),)) for name in sys.argv[4:])
supervisor.Supervisor(loaded, config, command=command, processes=(*PROCESSES, *more)).run()
"""


class Node:
    """One supervised node and what can be seen of it from outside."""

    def __init__(self, tmp_path: Path, config: NodeConfig, orders: dict[str, str], *more: str) -> None:
        self.config = config
        folder = tmp_path / "orders"
        folder.mkdir(exist_ok=True)
        (tmp_path / "child.py").write_text(CHILD)
        for role, order in orders.items():
            (folder / role).write_text(order)
        for path in (folder, tmp_path / "child.py", *folder.iterdir()):
            path.chmod(0o755)
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(tmp_path / "node.toml"), str(tmp_path / "child.py"), str(folder), *more],
            stderr=subprocess.PIPE,
            env={**os.environ, "HTTPS_PROXY": "http://proxy", "SECRET": "x"},
        )

    def said(self, role: str) -> str:
        path = self.config.paths.logs / f"{role}.log"
        return path.read_text() if path.exists() else ""

    def pids(self, role: str) -> list[int]:
        return [int(found) for found in re.findall(r"^who (\d+)", self.said(role), re.MULTILINE)]

    def stop(self) -> str:
        self.process.terminate()
        assert self.process.stderr is not None
        _, said = self.process.communicate(timeout=15)
        return said.decode()


def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def begin(*, separate: bool = False, **orders: str) -> Node:
        for folder in (tmp_path, *tmp_path.parents):
            if separate and folder != Path("/") and folder.stat().st_uid == os.geteuid():
                folder.chmod(folder.stat().st_mode | 0o011)
        config = config_in(tmp_path, separate=separate)
        prepare_state(config)
        nodes.append(Node(tmp_path, config, orders))
        return nodes[-1]

    yield begin
    for node in nodes:
        if node.process.poll() is None:
            node.process.kill()
        node.process.communicate()


def test_four_processes_start_and_the_node_says_when_it_is_ready(start: Callable[..., Node]) -> None:
    node = start()
    until(lambda: all(node.pids(role) for role in IDS) and is_ready(node.config))
    assert node.config.paths.supervisor_pid.read_text() == f"{node.process.pid}\n"
    time.sleep(0.3)
    said = node.stop()
    assert said.count("the node is ready") == 1 and node.process.returncode == 0
    assert not any(alive(pid) for role in IDS for pid in node.pids(role))


def test_a_supervisor_whose_children_live_sleeps(start: Callable[..., Node]) -> None:
    node = start()
    until(lambda: all(node.pids(role) for role in IDS) and is_ready(node.config))
    time.sleep(0.5)
    before = waits_of(node.process.pid)
    time.sleep(2.0)
    assert waits_of(node.process.pid) - before <= 1
    os.kill(node.pids("link")[0], signal.SIGKILL)
    until(lambda: len(node.pids("link")) > 1, 3.0)


def waits_of(pid: int) -> int:
    """How often a process has gone to sleep so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def test_a_process_that_is_declared_is_started_with_the_others(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    prepare_state(config)
    (config.paths.root / "web").mkdir(mode=0o700)  # as `cloister node init` makes it, of a table that has it
    node = Node(tmp_path, config, {}, "web")
    try:
        until(lambda: node.pids("web") and is_ready(config))
    finally:
        node.stop()
    assert not alive(node.pids("web")[0])


def test_children_inherit_no_environment_and_no_open_modes(start: Callable[..., Node]) -> None:
    node = start()
    until(lambda: all("environment" in node.said(role) for role in IDS))
    for role in IDS:
        said = node.said(role)
        assert "PROXY" not in said and "SECRET" not in said
        assert "umask 0o77 cwd /" in said
        assert re.search(r"^who .* 1$", said, re.MULTILINE), "no new privileges"
        assert (node.config.paths.logs / f"{role}.log").stat().st_mode & 0o777 == 0o600


def test_a_child_that_dies_is_started_again_ever_slower(start: Callable[..., Node]) -> None:
    node = start(intake="die")
    until(lambda: len(node.pids("intake")) >= 3)
    assert len(node.pids("core")) == 1
    pauses = [
        float(found) for found in re.findall(r"intake ended with status 7; it starts again in ([\d.]+) s", node.stop())
    ]
    assert pauses[:2] == [0.5, 1.0]


def test_a_killed_child_is_started_again_and_what_it_left_is_ended(start: Callable[..., Node]) -> None:
    node = start(core="grandchild")
    until(lambda: "grandchild" in node.said("core"))
    (left,) = re.findall(r"^grandchild (\d+)", node.said("core"), re.MULTILINE)
    os.kill(node.pids("core")[0], signal.SIGKILL)
    until(lambda: len(node.pids("core")) == 2)
    assert not alive(int(left))


def test_sigkill_of_the_supervisor_leaves_no_process_behind(start: Callable[..., Node]) -> None:
    node = start()
    until(lambda: all(node.pids(role) for role in IDS))
    pids = [pid for role in IDS for pid in node.pids(role)]
    assert all(alive(pid) for pid in pids)
    node.process.send_signal(signal.SIGKILL)
    node.process.wait()
    until(lambda: not any(alive(pid) for pid in pids), 5)


def test_a_stubborn_child_is_ended_within_ten_seconds(start: Callable[..., Node]) -> None:
    node = start(link="stubborn", broker="stubborn")  # both grace periods run out
    until(lambda: all(node.pids(role) for role in IDS))
    pids = [pid for role in IDS for pid in node.pids(role)]
    began = time.monotonic()
    said = node.stop()
    assert time.monotonic() - began < 10 and "does not end by itself" in said
    assert not any(alive(pid) for pid in pids)


def test_a_second_supervisor_of_the_same_state_is_refused(start: Callable[..., Node], tmp_path: Path) -> None:
    node = start()
    until(lambda: all(node.pids(role) for role in IDS))
    with pytest.raises(NotNow, match="running already"):
        Supervisor(node.config, tmp_path / "node.toml").run()
    assert all(len(node.pids(role)) == 1 and alive(node.pids(role)[0]) for role in IDS)


def test_a_state_folder_that_is_open_to_others_stops_the_start(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    with pytest.raises(UsageFault, match="is missing"):
        Supervisor(config, tmp_path / "node.toml").run()
    prepare_state(config)
    config.paths.keys.chmod(0o755)
    with pytest.raises(UsageFault, match="mode 755"):
        Supervisor(config, tmp_path / "node.toml").run()


def test_a_program_that_is_not_there_is_a_usage_fault_and_nothing_stays(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    prepare_state(config)
    with pytest.raises(UsageFault, match="cannot start broker"):
        Supervisor(config, tmp_path / "node.toml", command=lambda role: ["/no/such/program"]).run()


@as_root
def test_each_process_runs_as_its_own_user(start: Callable[..., Node]) -> None:
    node = start(separate=True)
    until(lambda: all(node.pids(role) for role in IDS) and is_ready(node.config))
    for role, uid in IDS.items():
        groups = groups_of(node.config, role)
        assert re.search(rf"^who \d+ {uid} {uid} {re.escape(str(groups))} 1$", node.said(role), re.MULTILINE), role
    assert groups_of(node.config, "core") == [IDS["intake"], IDS["link"], node.config.users.job_gid]
    assert groups_of(node.config, "link") == groups_of(node.config, "intake") == []
    pids = [pid for role in IDS for pid in node.pids(role)]
    node.process.send_signal(signal.SIGKILL)
    node.process.wait()
    until(lambda: not any(alive(pid) for pid in pids), 5)


def test_a_copy_of_the_state_by_hard_links_ends_no_node(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    prepare_state(config)
    supervisor = Supervisor(config, tmp_path / "node.toml", command=lambda role: ["/bin/echo", role])
    with only_one(config):
        child = next(each for each in supervisor._children if each.role == "link")
        supervisor._look_after(child)
        assert child.process is not None
        child.process.wait()
    copy = tmp_path / "copy"
    copy.mkdir()
    os.link(config.paths.logs / "link.log", copy / "link.log")
    os.link(config.paths.supervisor_pid, copy / "pid")
    with pytest.raises(UsageFault) as fault, only_one(config):
        pass
    assert "rm " in (fault.value.hint or "")
    config.paths.supervisor_pid.unlink()
    with only_one(config):
        supervisor._look_after(child)
        child.next_start_s = 0
        supervisor._look_after(child)
        assert child.process is not None
        child.process.wait()
        assert (copy / "link.log").read_text() == (config.paths.logs / "link.log").read_text() == "link\n"
        (config.paths.logs / "link.log").unlink()
        (config.paths.logs / "link.log").mkdir()
        supervisor._look_after(child)
        child.next_start_s = 0
        supervisor._look_after(child)
        assert child.process is None and child.next_start_s > time.monotonic(), "put off"
