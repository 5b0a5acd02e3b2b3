"""A real systemd machine for a test: an overlay over a root folder, booted by systemd-nspawn.

Its network is its own and empty until it is joined to another (`network.py`). Nothing of it reaches this machine:
mounts lie in a mount namespace that ends with it, control groups below one of its own, files below one folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.install.roots import CACHE, CannotMake, System, program, root

CGROUPS = Path("/sys/fs/cgroup")
# A container engine in a machine makes session keys, mounts and namespaces; nspawn's own filter forbids the first.
CALLS = "@keyring @privileged @mount @raw-io @debug bpf"
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
               "LANG": "C.UTF-8", "TERM": "dumb"}  # fmt: skip
# Everything in one mount namespace of its own: the overlay, and /run/systemd/nspawn, which must be a tmpfs.
BOOT = """
set -e
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/up,workdir=$2/work" "$2/root"
shift 2
exec "$@"
"""


class Machine:
    """One machine; `folder` holds all of it, so that another process can find it again (`Machine.found`)."""

    def __init__(self, name: str, system: System, *, engine: bool = True, cache: Path = CACHE) -> None:
        self.name, self.system, self.cache = name, system, cache
        self.base = root(system, engine=engine, cache=cache)
        self.folder = cache / "live" / name
        for part in ("up", "work", "root", "docker", "shared"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        (self.folder / "kind").write_text(f"{system.name} {'engine' if engine else 'bare'}")
        self.engine = engine

    # ---------------------------------------------------------------- its power

    def start(self, *, within_s: float = 90.0) -> float:
        """Boots; returns how many seconds until systemd says it is running."""
        if os.geteuid() != 0:
            raise CannotMake("only root can boot a machine: run the tests as root, or leave out tests/install")
        began = time.monotonic()
        nspawn = program("systemd-nspawn", "systemd-container", self.cache)
        words = [
            "unshare", "--mount", "--propagation", "private", "sh", "-c", BOOT, "sh", str(self.base), str(self.folder),
            str(nspawn), "-D", str(self.folder / "root"), "-b", f"--machine={self.name}", "--private-network",
            "--register=no", "--keep-unit", "--console=pipe", "--resolv-conf=off", "--timezone=off",
            "--capability=all", f"--system-call-filter={CALLS}",
            f"--bind={self.folder / 'docker'}:/var/lib/docker", f"--bind={self.folder / 'shared'}:/mnt",
        ]  # fmt: skip
        with (self.folder / "console.log").open("ab") as log:
            started = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=self._into_own_cgroups,
            )  # fmt: skip
        (self.folder / "pid").write_text(str(started.pid))
        self._started = started
        while not self._is_up():
            if started.poll() is not None or time.monotonic() - began > within_s:
                raise CannotMake(f"{self.name} did not boot:\n{self.console()[-2000:]}")
            time.sleep(0.2)
        self._give_controllers()
        return time.monotonic() - began

    def stop(self, *, within_s: float = 60.0) -> None:
        """Powers off as an operator would; whatever does not end is killed."""
        pid, leader = self.pid(), self.leader()
        if leader:
            os.kill(leader, signal.SIGRTMIN + 4)  # systemd: power off
        deadline = time.monotonic() + within_s
        while pid and alive(pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        for one in (leader, pid):
            if one and alive(one):
                os.kill(one, signal.SIGKILL)
        if (started := getattr(self, "_started", None)) is not None:
            started.wait(10)
        (self.folder / "pid").unlink(missing_ok=True)
        self._leave_cgroups()

    def reboot(self) -> float:
        self.stop()
        return self.start()

    def cut_power(self) -> None:
        """No shutdown: everything in it dies at once."""
        if leader := self.leader():
            os.kill(leader, signal.SIGKILL)
        self.stop(within_s=10)

    def end(self) -> None:
        """Off, and every file of it gone."""
        self.stop(within_s=20)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Machine:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    # ---------------------------------------------------------------- what one does in it

    def run(
        self, *words: str | Path, check: bool = True, stdin: str = "", within_s: float = 600.0,
        environment: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """A command as root inside, with nothing of our environment."""
        leader = self.leader()
        if not leader:
            raise CannotMake(f"{self.name} is not running")
        settings = [f"{name}={value}" for name, value in {**ENVIRONMENT, **(environment or {})}.items()]
        inside = ["nsenter", "--target", str(leader), "--all", "--root", "--wd", "--", "env", "-i", *settings]
        done = subprocess.run(
            [*inside, *(str(word) for word in words)], input=stdin, capture_output=True, text=True, check=False,
            timeout=within_s,
        )  # fmt: skip
        if check and done.returncode:
            said = (done.stdout[-3000:] + done.stderr[-3000:]).strip()
            raise AssertionError(
                f"{self.name}: {' '.join(map(str, words))[:300]} ended with {done.returncode}:\n{said}"
            )
        return done

    def shell(self, script: str, *, check: bool = True, within_s: float = 600.0) -> subprocess.CompletedProcess[str]:
        return self.run("bash", "-c", script, check=check, within_s=within_s)

    def path(self, inside: str | Path) -> Path:
        """A path of the running machine, as this machine can open it. Links in it lead into this machine: mind them."""
        leader = self.leader()
        if not leader:
            raise CannotMake(f"{self.name} is not running")
        return Path(f"/proc/{leader}/root") / str(inside).lstrip("/")

    def put(self, source: Path, inside: str | Path) -> None:
        """A file or a folder into it, owned by root."""
        target = self.path(inside)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)

    def get(self, inside: str | Path, target: Path) -> None:
        shutil.copy2(self.path(inside), target)

    def write(self, inside: str | Path, text: str, mode: int = 0o644) -> None:
        target = self.path(inside)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def console(self) -> str:
        return (self.folder / "console.log").read_text(errors="replace")

    def pid(self) -> int:
        try:
            pid = int((self.folder / "pid").read_text())
        except (OSError, ValueError):
            return 0
        return pid if alive(pid) else 0

    def leader(self) -> int:
        """The machine's process 1, as this machine numbers it; 0 while it is off."""
        pid = self.pid()
        if not pid:
            return 0
        for child in children(pid):
            try:
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return child
            except OSError:
                continue  # it has ended meanwhile
        return 0

    # ---------------------------------------------------------------- inside

    def _is_up(self) -> bool:
        if not self.leader():
            return False
        try:
            said = self.run("systemctl", "is-system-running", check=False, within_s=20).stdout.strip()
        except (subprocess.TimeoutExpired, CannotMake, OSError):
            return False
        return said in ("running", "degraded")

    def _cgroups(self) -> Iterator[Path]:
        """Where a group of this machine lies in each hierarchy: several with version 1, one with version 2."""
        hierarchies = [CGROUPS] if (CGROUPS / "cgroup.procs").exists() else sorted(CGROUPS.iterdir())
        for hierarchy in hierarchies:
            if (hierarchy / "cgroup.procs").exists() and not hierarchy.is_symlink():
                yield hierarchy / f"cloister-machine-{self.name}"

    def _into_own_cgroups(self) -> None:
        """Two machines in one control group would end each other's processes."""
        for group in self._cgroups():
            group.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                # a group that was there already has them, and may not change them while it has groups below it
                if (group / name).exists() and not (group / name).read_text().strip():
                    (group / name).write_text((group.parent / name).read_text())
            (group / "cgroup.procs").write_text(str(os.getpid()))

    def _leave_cgroups(self) -> None:
        for group in self._cgroups():
            for folder, _, _ in os.walk(group, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:
                    pass  # a process of it is still ending; an empty group costs nothing

    def _give_controllers(self) -> None:
        """With control groups of version 1 nspawn leaves the controllers read-only; an engine must write them."""
        self.run(
            "sh", "-c",
            "for at in /sys/fs/cgroup/*; do [ -w $at ] || mount -o remount,rw,bind $at 2>/dev/null || true; done",
        )  # fmt: skip


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def children(pid: int) -> Sequence[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(entry.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry.parent.name))
        except (OSError, IndexError, ValueError):
            continue
    return found


def found(name: str, cache: Path = CACHE) -> Machine:
    """A machine that another process started."""
    from tests.install.roots import SYSTEMS

    try:
        system, kind = (cache / "live" / name / "kind").read_text().split()
    except (OSError, ValueError):
        raise CannotMake(f"no machine {name}: `up {name}` makes one") from None
    return Machine(name, SYSTEMS[system], engine=kind == "engine", cache=cache)
