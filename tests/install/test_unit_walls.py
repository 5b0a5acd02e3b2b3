"""What a process that was taken over can still do under its unit: attacks from inside, in a real systemd machine.

Each unit is started as it is made, with its user, groups and walls; only the program in it is an attacker's.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from node.host.installed import Installed
from node.host.systemd import units
from tests.install.machine import Machine
from tests.install.roots import DEBIAN_12
from tests.node.host.test_units import machine as made_for
from tests.node.host.test_units import node

pytestmark = pytest.mark.slow

STATE = "/var/lib/cloister"
ROOMS = ("audit", "core", "datasets", "handover", "intake", "keys", "link", "logs", "spool", "supervisor", "work")
PROBE = r"""
import ctypes, json, mmap, os, pathlib, socket, sys
state = pathlib.Path(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)

def tried(what, *arguments):
    try:
        what(*arguments)
    except OSError as error:
        return "timed out" if error.errno is None else os.strerror(error.errno)
    return "done"

def write(path):
    made = pathlib.Path(path) / "attack"
    made.write_bytes(b"x")
    made.unlink()

def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.settimeout(2)
        one.connect(address)

def abstract():
    with socket.socket(socket.AF_UNIX) as one:
        one.connect("\0cloister-test")

def link(source, target):
    one, two = state / source / "one", state / target / "two"
    one.write_bytes(b"1")
    os.link(one, two)
    one.unlink()
    two.unlink()

def called(function, *arguments):
    # in a child: what it does is done to nobody else
    child = os.fork()
    if child == 0:
        os._exit(ctypes.get_errno() if libc[function](*arguments) == -1 else 0)
    if number := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise OSError(number, function)

found = {
    "who": [os.getuid() != 0, len(os.listdir("/proc/self/task"))],
    "stranger": tried(connect, socket.AF_INET, ("127.0.0.1", 7)),
    "hub": tried(connect, socket.AF_INET, ("127.0.0.2", 7)),
    "abstract": tried(abstract),
    "write": {name: tried(write, state / name) for name in sys.argv[2].split(",")},
    "read": {name: tried(os.listdir, state / name) for name in sys.argv[2].split(",")},
    "elsewhere": {path: tried(write, path) for path in ("/etc", "/opt", "/var/log", "/usr/local", "/srv")},
    "home": tried(os.listdir, "/home/import"),
    "tmp": sorted(os.listdir("/tmp")),
    "others": [pid for pid in os.listdir("/proc") if pid == "1"],
    "namespace": tried(called, "unshare", 0x10000000),
    "mount": tried(called, "mount", b"none", b"/mnt", b"tmpfs", 0, None),
    "executable": tried(mmap.mmap, -1, 4096, mmap.MAP_PRIVATE, mmap.PROT_WRITE | mmap.PROT_EXEC),
    "link": tried(link, "datasets", "work"),
}
print(json.dumps(found), flush=True)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    config = node(tmp_path_factory.mktemp("config"), '[intake]\nsource_roots = ["/home/import"]\n')
    assert str(config.paths.root) == STATE
    # whose socket it is was asked of this machine, and the units are for another
    config = config.model_copy(update={"engine": config.engine.model_copy(update={"socket": "unix:///run/none.sock"})})
    return units(config, made_for(("127.0.0.2",)))


@pytest.fixture(scope="module")
def walled(made: Installed) -> Iterator[Machine]:
    """A machine with the node's users and folders, a listener on its loopback, and the attacker's program."""
    with Machine("test-walls", DEBIAN_12) as one:
        for file in made.files:
            one.write(file.path, file.text)
        one.write("/usr/local/lib/probe.py", PROBE)
        one.run("systemd-sysusers")
        folders = "".join(
            f"install -d -o {each.user} -g {each.group} -m {each.mode} {each.path}\n" for each in made.folders
        )
        one.shell(
            f"install -d -m 711 {STATE}; install -d -o root -g cloister-core -m 1771 {STATE}/run\n{folders}"
            f"install -d -m 700 {STATE}/logs; install -d -m 755 {STATE}/supervisor\n"
            "install -d -m 755 /home/import; touch /home/import/study; touch /tmp/anothers\n"
        )
        one.shell(
            "systemd-run --unit=listener /usr/bin/python3 -c 'import socket, time\n"
            's = socket.create_server(("0.0.0.0", 7)); a = socket.socket(socket.AF_UNIX); '
            'a.bind("\\0cloister-test"); a.listen(); time.sleep(3600)\''
        )
        yield one


def attack(walled: Machine, made: Installed, name: str) -> Any:
    """The unit as it is, but for the program, and for what binds it to the others."""
    unit = next(file.text for file in made.files if file.path.name == f"cloister-{name}.service")
    unit = re.sub(r"^(BindsTo|PartOf|After|Wants|NotifyAccess|WatchdogSec|Restart\w*)=.*\n", "", unit, flags=re.M)
    unit = re.sub(r"^Type=notify$", "Type=oneshot", unit, flags=re.M)
    program = f"/usr/bin/python3 -I /usr/local/lib/probe.py {STATE} {','.join(ROOMS)}"
    unit = re.sub(r"^ExecStart=.*$", f"ExecStart={program}", unit, flags=re.M)
    walled.write(f"/run/systemd/system/attack-{name}.service", unit)
    walled.run("systemctl", "daemon-reload")
    ended = walled.run("systemctl", "start", f"attack-{name}", check=False)
    for _ in range(50):
        said = walled.run("journalctl", "-u", f"attack-{name}", "-o", "cat", "--no-pager").stdout
        if lines := [line for line in said.splitlines() if line.startswith("{")]:
            return json.loads(lines[-1])
        time.sleep(0.1)
    raise AssertionError(f"{name}: {ended.stderr}\n{said}")


def test_the_attacks_succeed_where_there_is_no_wall(walled: Machine) -> None:
    """Positive control: as root and outside of any unit."""
    said = json.loads(walled.run("/usr/bin/python3", "-I", "/usr/local/lib/probe.py", STATE, ",".join(ROOMS)).stdout)
    assert {*said["write"].values(), *said["read"].values(), *said["elsewhere"].values()} == {"done"}
    free = ("hub", "stranger", "abstract", "namespace", "mount", "executable", "link", "home")
    assert {each: said[each] for each in free} == dict.fromkeys(free, "done")
    walled.run("umount", "/mnt")
    assert "anothers" in said["tmp"] and said["others"] == ["1"]


WRITES = {
    "broker": {"work"},
    "core": {"audit", "core", "datasets", "keys", "spool"},
    "intake": {"intake", "handover"},
    "link": {"link"},
}
READS = {"core": {"handover", "work"}, "link": {"spool"}}


@pytest.mark.parametrize("name", WRITES)
def test_a_process_that_was_taken_over_is_alone_with_its_own(walled: Machine, made: Installed, name: str) -> None:
    said = attack(walled, made, name)
    assert said["who"][0], "not root"
    written = {room for room, outcome in said["write"].items() if outcome == "done"}
    read = {room for room, outcome in said["read"].items() if outcome == "done"}
    assert written - {"work"} == WRITES[name] - {"work"}
    # of core's the folders in `work` are, and not `work` itself: there the broker makes them
    assert ("work" in written) == (name == "broker")
    assert read == WRITES[name] | READS.get(name, set())
    assert "done" not in said["elsewhere"].values()
    assert said["tmp"] == [] and said["others"] == []
    assert "done" not in {said[each] for each in ("namespace", "mount", "executable")}
    if name == "link":  # the hub, and nobody else
        assert (said["hub"], said["stranger"]) == ("done", "timed out")
    else:  # no abstract name is known in a network of one's own, and no address can be called
        assert {said["hub"], said["stranger"]} == {"Address family not supported by protocol"}
        assert said["abstract"] == "Connection refused"
    assert (said["home"] == "done") == (name == "intake")


def test_core_may_link_a_study_into_a_jobs_folder_which_lies_in_another_room(walled: Machine, made: Installed) -> None:
    """One writable mount: two would refuse it, and every job would copy its data."""
    job = f"{STATE}/work/job-1"
    walled.shell(f"install -d -o cloister-broker -g cloister-core -m 2775 {job}")
    unit = next(file.text for file in made.files if file.path.name == "cloister-core.service")
    assert f"ReadWritePaths={STATE}\n" in unit
    walled.write("/usr/local/lib/probe.py", PROBE.replace('"datasets", "work")', '"datasets", "work/job-1")'))
    assert attack(walled, made, "core")["link"] == "done"
    walled.write("/usr/local/lib/probe.py", PROBE)
