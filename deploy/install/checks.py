"""What a machine must have, looked at before anything is changed: one line each, with its state and the cure.

`ok`, `warning` (installed all the same), `failed` (nothing is installed), `unknown` (nobody can tell from here).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import layout
from .check_disks import disks
from .check_engine import engine
from .machine import Machine
from .talk import say

_SYSTEMS = ("debian-12", "ubuntu-24.04")
_PYTHONS = ((3, 11), (3, 12))
_GIB = 1 << 30
_OR_BUNDLE = "; or name a bundle, which needs none: --bundle FILE"
_NODE_MEMORY, _HUB_MEMORY = 4 * _GIB, 2 * _GIB
# before the product was made: a clock that says so was never set
_EPOCH_S = 1_735_689_600


@dataclass(frozen=True)
class Finding:
    what: str
    state: str
    detail: str
    cure: str = ""


@dataclass(frozen=True)
class Wanted:
    """What is about to be installed, as far as it is known: what a check does not know of is not looked at."""

    role: layout.Role
    hub: tuple[str, int] | None = None
    port: int | None = None
    engine: str | None = None
    offline: bool = False
    systems: tuple[str, ...] = _SYSTEMS
    # an upgrade: our own port and services are no conflict
    again: bool = False
    brings: tuple[str, ...] = field(default=())


def check(machine: Machine, wanted: Wanted) -> list[Finding]:
    """Every finding, in the order of the table."""
    return [found for look in _LOOKS for found in look(machine, wanted)]


def failed(findings: list[Finding]) -> list[Finding]:
    return [each for each in findings if each.state == "failed"]


def show(findings: list[Finding], *, as_json: bool = False) -> None:
    if as_json:
        print(json.dumps([asdict(each) for each in findings], indent=1))
        return
    wide = max(len(each.what) for each in findings)
    for each in findings:
        print(f"{each.state:8} {each.what:{wide}}  {each.detail}")
        if each.cure and each.state != "ok":
            print(f"{'':8} {'':{wide}}  -> {each.cure}")
    sys.stdout.flush()
    if bad := failed(findings):
        say(f"{len(bad)} of {len(findings)} checks failed: {', '.join(each.what for each in bad)}")


def _system(machine: Machine, wanted: Wanted) -> Iterator[Finding]:
    system, architecture = machine.system, machine.architecture
    if system not in wanted.systems:
        cure = f"use one of {', '.join(wanted.systems)}: nothing else is tried"
        yield Finding("system", "failed", f"{system} is not supported", cure)
    elif architecture != "x86_64":
        yield Finding("system", "failed", f"{system} on {architecture}", "use x86_64")
    else:
        yield Finding("system", "ok", f"{system} on {architecture}")
    if not machine.program("systemctl") or (machine.real and not Path("/run/systemd/system").is_dir()):
        yield Finding("systemd", "failed", "does not run here", "in a container: `cloister node serve`, no installer")
    else:
        yield Finding("systemd", "ok", "runs")
    if os.geteuid() != 0:
        yield Finding("root", "failed", "you are not root", "run the same line with sudo")


def _python(machine: Machine, wanted: Wanted) -> Iterator[Finding]:
    here = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] not in _PYTHONS:
        yield Finding("python", "failed", here, "Python 3.11 or 3.12 is needed: Debian 12 or Ubuntu 24.04 have it")
    elif not wanted.offline and machine.run([sys.executable, "-I", "-c", "import ensurepip, venv"]).code:
        yield Finding("python", "failed", f"{here} without venv", f"apt-get install python3-venv{_OR_BUNDLE}")
    else:
        yield Finding("python", "ok", here)


def _engine(machine: Machine, wanted: Wanted) -> Iterator[Finding]:
    if wanted.role == "node":
        yield from (Finding(*each) for each in engine(machine, wanted.engine, wanted.brings, wanted.offline))


def _kernel(machine: Machine, wanted: Wanted) -> Iterator[Finding]:
    if wanted.role == "hub":
        return
    if machine.at("/sys/fs/cgroup/cgroup.controllers").exists():
        controllers = machine.text("/sys/fs/cgroup/cgroup.controllers").split()
        missing = sorted({"cpu", "memory", "pids"} - set(controllers))
        if missing:
            yield Finding("cgroups", "failed", f"version 2 without {', '.join(missing)}", "enable these controllers")
        else:
            yield Finding("cgroups", "ok", "version 2")
    else:
        cure = "boot with systemd.unified_cgroup_hierarchy=1; rootless Podman cannot limit a job without it"
        yield Finding("cgroups", "warning", "version 1", cure)
    allowed = machine.text("/proc/sys/user/max_user_namespaces").strip()
    clone = machine.text("/proc/sys/kernel/unprivileged_userns_clone").strip()
    if allowed == "0":
        cure = "a rootless engine needs them: sysctl user.max_user_namespaces=15000"
        yield Finding("user namespaces", "warning", "none allowed", cure)
    elif clone == "0":
        cure = "a rootless engine needs them: sysctl kernel.unprivileged_userns_clone=1"
        yield Finding("user namespaces", "warning", "root's alone", cure)
    else:
        yield Finding("user namespaces", "ok", f"{allowed or 'any number'} allowed")


def _memory(machine: Machine, wanted: Wanted) -> Iterator[Finding]:
    sizes = {line.split(":")[0]: line.split()[1] for line in machine.text("/proc/meminfo").splitlines() if ":" in line}
    if not sizes.get("MemTotal", "").isdigit():
        yield Finding("memory", "unknown", "/proc/meminfo cannot be read")
        return
    total, least = int(sizes["MemTotal"]) * 1024, _NODE_MEMORY if wanted.role == "node" else _HUB_MEMORY
    detail = f"{total / _GIB:.1f} GiB"
    # firmware and kernel keep some of what was bought
    if total < least * 0.9:
        yield Finding("memory", "failed", detail, f"at least {least // _GIB} GiB for a {wanted.role}")
    else:
        yield Finding("memory", "ok", detail)


def _clock(machine: Machine, wanted: Wanted) -> Iterator[Finding]:
    now = time.time()
    if now < _EPOCH_S:
        yield Finding("clock", "failed", f"says {time.strftime('%Y-%m-%d', time.gmtime(now))}", "set it: timedatectl")
        return
    synchronised = machine.run(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
    if synchronised.done and synchronised.out.strip() == "yes":
        yield Finding("clock", "ok", "synchronised")
    else:
        cure = "timedatectl set-ntp true, with a time server that this machine reaches; two minutes off stop a node"
        yield Finding("clock", "warning", "not known to be synchronised", cure)


def _hub_reachable(machine: Machine, wanted: Wanted) -> Iterator[Finding]:
    if wanted.role == "hub" or wanted.hub is None:
        return
    host, port = wanted.hub
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        yield Finding("dns", "warning", f"{host} is not known", "name it in DNS or /etc/hosts before you enrol")
        return
    address = found[0][4][0]
    yield Finding("dns", "ok", f"{host} is {address}")
    try:
        socket.create_connection((str(address), port), timeout=5.0).close()
    except OSError as error:
        cure = f"let this machine out to {host}:{port} (TCP), without a proxy that opens TLS"
        yield Finding("hub", "warning", f"{host}:{port} does not answer ({error.strerror or 'timed out'})", cure)
    else:
        yield Finding("hub", "ok", f"{host}:{port} answers")


def _port(machine: Machine, wanted: Wanted) -> Iterator[Finding]:
    if wanted.role == "node":
        yield Finding("inbound ports", "ok", "a node listens on none")
        return
    if wanted.port is None or wanted.again:
        return
    with socket.socket(socket.AF_INET6 if socket.has_ipv6 else socket.AF_INET) as trying:
        trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trying.bind(("", wanted.port))
        except OSError as error:
            cure = "stop what listens there (ss -ltnp), or choose another: --port"
            yield Finding("port", "failed", f"{wanted.port} is not free ({error.strerror})", cure)
        else:
            yield Finding("port", "ok", f"{wanted.port} is free")


def _guards(machine: Machine, _wanted: Wanted) -> Iterator[Finding]:
    if machine.text("/sys/fs/selinux/enforce").strip() == "1":
        cure = "no policy of ours exists: setenforce 0 and SELINUX=permissive, or a machine with AppArmor"
        yield Finding("selinux", "failed", "enforcing, which is not supported", cure)
    elif machine.text("/sys/module/apparmor/parameters/enabled").strip() == "Y":
        yield Finding("apparmor", "ok", "on; the engine's own profile holds for jobs")
    else:
        yield Finding("apparmor", "warning", "neither AppArmor nor SELinux", "a second wall around jobs is missing")


def _conflicts(machine: Machine, wanted: Wanted) -> Iterator[Finding]:
    if wanted.again:
        return
    ours = machine.at(layout.INSTALLED).exists()
    running = machine.run(["systemctl", "list-units", "--no-legend", "--plain", "cloister-*"])
    units = [line.split()[0] for line in running.out.splitlines() if line.strip()]
    if units and not ours:
        yield Finding("services", "failed", f"{units[0]} is there, and not by this installer", "stop and remove it")
    elif machine.at(f"{layout.state(wanted.role)}/supervisor/supervisor.pid").exists() and not ours:
        yield Finding("services", "warning", "`cloister node serve` may be running", "end it before this starts")
    else:
        yield Finding("services", "ok", "nothing in the way")


_LOOKS: tuple[Callable[[Machine, Wanted], Iterator[Finding]], ...] = (
    _system, _python, _engine, _kernel,
    lambda machine, wanted: (Finding(*each) for each in disks(machine, wanted.role)),
    _memory, _clock, _hub_reachable, _port, _guards, _conflicts,
)  # fmt: skip


def free_bytes(path: Path) -> int:
    """What is free where a path lies, or would."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
