"""What is tried in a machine with a kernel of its own (`python -m tests.kinds`). Runs in it, as root, once."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from deploy.install.checks import Finding, Wanted, check
from deploy.install.config_text import facts
from deploy.install.engine_kinds import kind_of
from deploy.install.machine import Machine
from node.host.service_units import ServiceUnit

SHARED = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("/host")
MANUAL = Path(__file__).parents[2] / "deploy/docs/install.md"
UNITS = Path("/etc/systemd/system")
USER = "cloister-broker"
MIB = 1 << 20
STATE = Path("/var/lib/cloister")


def sh(words: str, *, check: bool = True, timeout_s: float = 600.0) -> str:
    done = subprocess.run(["/bin/sh", "-c", words], capture_output=True, text=True, check=False, timeout=timeout_s)
    if check and done.returncode:
        raise RuntimeError(f"{words}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout.strip()


def finding(what: str, wanted: Wanted | None = None) -> Finding:
    return next(each for each in check(Machine(), wanted or Wanted("node")) if each.what == what)


def expect(holds: object, said: object) -> str:
    if not holds:
        raise AssertionError(str(said))
    return str(said)


def the_kernel_bounds_everything() -> str:
    seen = finding("cgroups")
    return expect(seen.state == "ok" and seen.detail == "version 2", f"{os.uname().release}: cgroups {seen.detail}")


def a_service_that_takes_more_than_its_memory_is_ended_and_the_machine_goes_on() -> str:
    """With our own unit, as it is written for every process; with room for it, it ends by itself."""
    takes = "import sys; held = [bytearray(b'x' * (1 << 20)) for _ in range(200)]; sys.exit(7)"
    ends = {}
    for name, limit in (("over", 128 * MIB), ("under", 512 * MIB)):
        service = ServiceUnit("trial", ("/usr/bin/python3", "-c", takes), "nobody", restart="no", memory_bytes=limit)
        (UNITS / f"trial-{name}.service").write_text(service.text())
    sh("systemctl daemon-reload")
    for name in ("over", "under"):
        sh(f"systemctl start trial-{name}.service", check=False)
        ends[name] = sh(f"systemctl show -P Result trial-{name}.service")
        ends[f"{name} code"] = sh(f"systemctl show -P ExecMainStatus trial-{name}.service")
    shown = sh("systemctl show -P MemoryMax trial-over.service")
    held = ends["over"] == "oom-kill" and ends["under code"] == "7" and shown == str(128 * MIB)
    return expect(held, f"MemoryMax={shown}: 200 MiB asked: {ends}")


def every_wall_of_a_unit_starts_there() -> str:
    """No setting of ours is one that systemd on this kernel cannot make: a service that only says it is ready."""
    says = (
        "import os, socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "
        "s.sendto(b'READY=1', os.environ['NOTIFY_SOCKET']); import time; time.sleep(600)"
    )
    service = ServiceUnit("trial", ("/usr/bin/python3", "-c", says), "nobody", own_users=True)
    (UNITS / "trial-walls.service").write_text(service.text())
    sh("systemctl daemon-reload; systemctl start trial-walls.service")
    tasks = sh("cat /sys/fs/cgroup/system.slice/trial-walls.service/pids.max")
    sh("systemctl stop trial-walls.service")
    return expect(tasks == "256", f"started behind every wall, pids.max {tasks}")


def encrypted_volumes_are_recognised() -> str:
    STATE.mkdir(exist_ok=True)
    before = finding("encryption")
    sh("truncate -s 64M /var/tmp/luks; echo -n secret > /run/key")
    sh("cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 /var/tmp/luks /run/key")
    sh("cryptsetup open --key-file /run/key /var/tmp/luks data && mkfs.ext4 -q /dev/mapper/data")
    sh(f"mount /dev/mapper/data {STATE}")
    try:
        disk, seen = finding("data disk"), finding("encryption")
    finally:
        sh(f"umount {STATE}; cryptsetup close data")
    held = before.state == "warning" and seen.state == "ok" and disk.detail.endswith(f"(ext4) on {STATE}")
    return expect(held, f"{before.detail}; {seen.detail}; {disk.detail}")


def quotas_are_told_with_what_is_left() -> str:
    said = []
    sh("useradd --system cloister-core", check=False)
    for kind, make, options in (
        ("ext4", "mkfs.ext4 -q -O quota -E quotatype=usrquota", "usrquota"),
        ("xfs", "mkfs.xfs -q -f", "uquota"),
    ):
        image = f"/var/tmp/{kind}"
        sh(f"truncate -s 400M {image}; {make} {image}; mount -o loop,{options} {image} {STATE}")
        try:
            free = finding("quotas")
            sh(f"setquota -u cloister-core 0 20480 0 0 {STATE}; chmod 0777 {STATE}")
            sh(f"setpriv --reuid=cloister-core --clear-groups sh -c 'head -c 15M /dev/zero > {STATE}/a; sync'")
            seen = finding("quotas")
            expect(seen.state == "warning" and "cloister-core" in seen.detail, f"{kind}: {free} then {seen}")
            said.append(f"{kind}: {seen.detail}")
        finally:
            sh(f"umount {STATE}")
    return "; ".join(said)


def a_rootless_podman_bounds_its_containers() -> str:
    """The user and what it needs, as install.md says; then the product's own tests of the sandbox on that engine."""
    home = Path("/var/lib/engine")
    for line in said_by_the_manual():
        sh(f"bash -c {shlex.quote(line)}")
    uid = int(sh(f"id -u {USER}"))
    path = Path(f"/run/user/{uid}/podman/podman.sock")
    as_user = f"setpriv --reuid={USER} --regid={USER} --init-groups env HOME={home} XDG_RUNTIME_DIR=/run/user/{uid}"
    bus = f"DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus"
    wait(lambda: Path(f"/run/user/{uid}/bus").exists())
    sh(f"systemctl --user --machine={USER}@ enable --now podman.socket")
    wait(path.exists)
    url = f"unix://{path}"
    wait(lambda: kind_of(Machine(), url), 180)  # its first start, on a slow machine
    wanted = Wanted("node", engine=url)
    rows = {each.what: each for each in check(Machine(), wanted) if each.what.startswith("engine")}
    said = [f"{each.what}: {each.state}, {each.detail}" for each in rows.values()]
    expect(all(each.state == "ok" for what, each in rows.items() if what != "engine's containers"), said)
    found = facts(Machine(), url)
    expect((found.engine_user, found.job_group) == (USER, 100_000 + 65_532 - 1), found)
    sh(f"cd {home} && {as_user} {bus} podman load --input {SHARED}/cloister-sentinel.tar", timeout_s=900)
    reads = "print(*(open('/sys/fs/cgroup/' + each).read().strip() for each in ('memory.max', 'pids.max', 'cpu.max')))"
    held = sh(
        f"cd {home} && {as_user} {bus} podman run --rm --network none --memory 64m --memory-swap 64m --pids-limit 20 "
        f'--cpus 0.5 --user 65532:65532 --entrypoint python3 cloister-sentinel -c "{reads}"'
    )
    expect(held.split() == [str(64 * MIB), "20", "50000", "100000"], held)
    return "; ".join([*said, f"a container's memory.max, pids.max, cpu.max: {held}"])


def a_rootless_podman_forgets_the_limits_of_processes_that_it_is_asked_for() -> str:
    """Why its containers are refused, seen from inside one: the number of open files and the size of a core that the
    engine's API was told are not in force. After the trial before this one."""
    reads = "import resource as r; print('in force', r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_CORE))"
    limits = [{"Name": "nofile", "Soft": 64, "Hard": 64}, {"Name": "core", "Soft": 0, "Hard": 0}]
    told = {
        "Image": "cloister-sentinel", "Entrypoint": ["python3", "-c", reads], "Cmd": [], "User": "65532:65532",
        "HostConfig": {"NetworkMode": "none", "Ulimits": limits, "LogConfig": {"Type": "json-file"}},
    }  # fmt: skip
    name = json.loads(asked("POST", "/containers/create", told))["Id"]
    asked("POST", f"/containers/{name}/start")
    asked("POST", f"/containers/{name}/wait")
    said = asked("GET", f"/containers/{name}/logs?stdout=true&stderr=true").decode("utf-8", "replace")
    asked("DELETE", f"/containers/{name}?force=true")
    line = next((each for each in said.splitlines() if "in force" in each), said)
    # whoever sees them in force finds an engine that may be let in (adr/0042)
    return expect("in force" in line and "(64, 64)" not in line, line[line.find("in force") :])


def asked(verb: str, path: str, body: object = None) -> bytes:
    """One question to the rootless engine, as Docker's API has it."""
    ready = http.client.HTTPConnection("engine", timeout=600)
    ready.sock = socket.socket(socket.AF_UNIX)
    ready.sock.connect(f"/run/user/{sh(f'id -u {USER}')}/podman/podman.sock")
    raw = None if body is None else json.dumps(body)
    ready.request(verb, f"/v1.41{path}", raw, {"Content-Type": "application/json"})
    answer = ready.getresponse()
    said = answer.read()
    expect(answer.status < 400, said)
    return said


def what_a_rootless_podman_does_not_do_as_asked_is_seen_before_any_job() -> str:
    """The product's own, as the user whose engine it is; after the trial before this one."""
    home, uid = Path("/var/lib/engine"), int(sh(f"id -u {USER}"))
    as_user = f"setpriv --reuid={USER} --regid={USER} --init-groups env HOME={home} XDG_RUNTIME_DIR=/run/user/{uid}"
    bus = f"DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus"
    log = SHARED / "canary.log"
    log.touch()
    log.chmod(0o666)
    sh(
        f"{as_user} {bus} {sys.executable} -B -m tests.kinds.canary unix:///run/user/{uid}/podman/podman.sock {home}/t "
        f"> {log} 2>&1",
        check=False, timeout_s=1200,
    )  # fmt: skip
    last = log.read_text().strip().splitlines()[-1]
    # the table of checks refuses this engine for it: whoever mends that finds this here
    return expect(last.endswith("not_sealed: ulimits; not_sealed: cgroup"), log.read_text()[-4000:])


def said_by_the_manual() -> list[str]:
    """The commands of install.md for a rootless engine."""
    block = MANUAL.read_text().split("**A rootless engine**", 1)[1].split("\n\n", 2)[1]
    lines = [line.strip() for line in block.splitlines() if line.startswith("    ")]
    assert lines, "install.md has no commands for a rootless engine"
    return [line for line in lines if "--machine=" not in line]


def wait(holds: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not holds():
        expect(
            time.monotonic() < until, f"not there after {seconds:.0f} s: {sh('journalctl -n 40 --no-pager')[-2500:]}"
        )
        time.sleep(0.5)


TRIALS: tuple[Callable[[], str], ...] = (
    the_kernel_bounds_everything, a_service_that_takes_more_than_its_memory_is_ended_and_the_machine_goes_on,
    every_wall_of_a_unit_starts_there, encrypted_volumes_are_recognised, quotas_are_told_with_what_is_left,
    a_rootless_podman_bounds_its_containers,
    a_rootless_podman_forgets_the_limits_of_processes_that_it_is_asked_for,
    what_a_rootless_podman_does_not_do_as_asked_is_seen_before_any_job,
)  # fmt: skip


def main() -> None:
    found: dict[str, dict[str, object]] = {}
    told = SHARED / "only"
    only = told.read_text().strip() if told.exists() else ""
    for trial in (each for each in TRIALS if only in each.__name__):
        since, name = time.monotonic(), trial.__name__.replace("_", " ")
        try:
            found[name] = {"ok": True, "said": trial()}
        except Exception:  # noqa: BLE001 - it is told as what was found, and the next is tried
            found[name] = {"ok": False, "said": traceback.format_exc()[-3000:]}
        found[name]["seconds"] = round(time.monotonic() - since, 1)
        print(name, found[name], flush=True)
        (SHARED / "found.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
