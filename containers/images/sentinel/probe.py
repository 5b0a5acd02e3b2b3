"""The canary's probe: tries, from inside a sandbox, everything that must fail, and what must work. Standard library.

It reads `/data/nonce`, tries each check below, and writes `/out/1/metrics.json`: {"failures": [names], "nonce": …},
then `/out/1/DONE`. A check's name appears in `failures` if something got through, or if something that must work
does not. A check that breaks in an unforeseen way counts as failed: what we did not measure, we do not claim.
"""

import ctypes
import hashlib
import json
import os
import platform
import signal
import socket
import stat
import sys
import tempfile
import time

TASK = "/out/1"
TIMEOUT_S = 0.3
# public addresses are never asked: the machine's own, the link-local metadata service, and documentation ranges
# (RFC 5737, RFC 3849) show as well that there is no way out
ADDRESSES = (("169.254.169.254", 80), ("192.0.2.1", 443), ("10.0.0.1", 22), ("172.17.0.1", 2375), ("2001:db8::1", 443))
SOCKET_FOLDERS = ("/run", "/var/run", "/tmp", "/data", "/in")
ENGINE_SOCKETS = ("docker.sock", "podman/podman.sock", "containerd/containerd.sock", "crio/crio.sock")
FORKS = 100_000  # beyond any limit a site would set; the loop ends at the first refusal

CALLS = {
    "x86_64": {
        "ptrace": 101, "mount": 165, "umount2": 166, "add_key": 248, "keyctl": 250, "unshare": 272, "setns": 308,
        "perf_event_open": 298, "bpf": 321, "userfaultfd": 323, "kexec_load": 246, "init_module": 175,
        "io_uring_setup": 425, "open_by_handle_at": 304, "process_vm_readv": 310, "pivot_root": 155, "chroot": 161,
        "setuid": 105, "reboot": 169, "fsopen": 430, "move_mount": 429, "pidfd_getfd": 438,
    },
    "aarch64": {
        "ptrace": 117, "mount": 40, "umount2": 39, "add_key": 217, "keyctl": 219, "unshare": 97, "setns": 268,
        "perf_event_open": 241, "bpf": 280, "userfaultfd": 282, "kexec_load": 104, "init_module": 105,
        "io_uring_setup": 425, "open_by_handle_at": 265, "process_vm_readv": 270, "pivot_root": 41, "chroot": 51,
        "setuid": 146, "reboot": 142, "fsopen": 430, "move_mount": 429, "pidfd_getfd": 438,
    },
}  # fmt: skip
# each allowed, these would do no harm with the arguments we give: the filter must say EPERM before they are read
EPERM = 1

CHECKS = []
ORDER = "/in/tasks/1/task.json"
# every mount of which the kernel must say so; gVisor tells of fewer
READ_ONLY = ("/", "/data", "/in", "/sys")
SCRATCH = ("/out", "/tmp", "/dev/shm")


def check(function):
    CHECKS.append(function)
    return function


def told(key):
    """What the broker says of the sandbox: `pids`, its limit on processes, `kernel`, the machine's or gVisor's,
    `user_namespace`, whether the engine has one for its containers, and `gpu_nodes`, how many /dev/nvidia<number> there
    are at least and at most."""
    with open(ORDER, encoding="ascii") as file:
        return json.load(file)["config"][key]


def on_gvisor():
    return told("kernel") == "gvisor"


def fails(action):
    """Whether `action` raises `OSError`; anything else that happens is a way through."""
    try:
        action()
    except OSError:
        return True
    return False


# ------------------------------------------------------------------ the network


@check
def names_do_not_resolve():
    return all(
        fails(lambda name=name: socket.getaddrinfo(name, 443)) for name in ("example.org", "host.docker.internal")
    )


@check
def only_a_loopback():
    return [name for _, name in socket.if_nameindex()] == ["lo"] and routes() == []


def routes():
    with open("/proc/net/route", encoding="ascii") as table:
        return table.readlines()[1:]


@check
def no_address_answers():
    return all(fails(lambda to=to: socket.create_connection(to, TIMEOUT_S).close()) for to in ADDRESSES)


@check
def no_datagram_leaves():
    def send(to):
        family = socket.AF_INET6 if ":" in to[0] else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as out:
            out.sendto(b"canary", to)

    return all(fails(lambda to=to: send(to)) for to in ADDRESSES)


@check
def no_raw_socket():
    kinds = ((socket.AF_INET, socket.SOCK_RAW, 1), (socket.AF_PACKET, socket.SOCK_RAW, 0), (40, socket.SOCK_STREAM, 0))
    return all(fails(lambda kind=kind: socket.socket(*kind).close()) for kind in kinds)


@check
def no_engine_socket():
    """None is there at all: one that only refuses to talk is a hole that waits for a mode to change."""
    known = [f"{folder}/{name}" for folder in ("/run", "/var/run") for name in ENGINE_SOCKETS]
    found = [os.path.join(at, name) for top in SOCKET_FOLDERS for at, _, names in os.walk(top) for name in names]
    return not any(os.path.lexists(path) for path in known) and not any(
        stat.S_ISSOCK(os.lstat(path).st_mode) for path in found
    )


@check
def no_abstract_socket():
    with open("/proc/net/unix", encoding="ascii", errors="replace") as table:
        return not any(" @" in line for line in table)


# ------------------------------------------------------------------ files


@check
def nothing_is_writable_but_scratch():
    places = ("/", "/data", "/in", "/in/tasks", "/etc", "/usr", "/var", "/opt", "/dev", "/sys", "/proc/sys/kernel")
    return all(fails(lambda at=at: open(os.path.join(at, "canary"), "xb").close()) for at in places)


@check
def data_cannot_be_changed():
    paths = ("/data/nonce", ORDER)
    actions = (lambda path: open(path, "ab").close(), os.unlink, lambda path: os.chmod(path, 0o700), os.utime)
    return all(fails(lambda act=act, path=path: act(path)) for act in actions for path in paths)


@check
def mounts_are_read_only():
    """Asked of the kernel, because a mount can be writable and its files still refuse us by their modes."""
    options = mount_options()
    told_so = all("ro" in options[at] for at in READ_ONLY) and all("noexec" in options[at] for at in SCRATCH[1:])
    if on_gvisor():  # it says no more; its /out is a file server's, which the host's mount bounds
        return told_so
    flags = {at: os.statvfs(at).f_flag for at in ("/", "/data", "/in", "/out", "/tmp", "/dev/shm", "/proc/sys", "/sys")}
    read_only = all(flags[at] & os.ST_RDONLY for at in ("/", "/data", "/in", "/proc/sys", "/sys"))
    scratch = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC
    return told_so and read_only and all(flags[at] & scratch == scratch for at in SCRATCH)


def mount_options():
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as table:
        return {line.split()[1]: line.split()[3].split(",") for line in table}


@check
def scratch_is_bounded():
    def size(at):
        answer = os.statvfs(at)
        return answer.f_blocks * answer.f_frsize, answer.f_files

    host_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    bounded = all(0 < size(at)[0] < host_bytes for at in SCRATCH)
    return bounded and 0 < size("/out")[1] <= 1_000_000


@check
def kernel_settings_cannot_be_written():
    paths = ("/proc/sys/kernel/domainname", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/kcore")
    return all(fails(lambda path=path: open(path, "r+b").close()) for path in paths)


@check
def secrets_of_the_kernel_are_masked():
    def empty(path):
        with open(path, "rb") as file:
            return file.read(1) == b""

    files = [path for path in ("/proc/keys", "/proc/timer_list", "/proc/sched_debug") if os.path.exists(path)]
    return all(empty(path) for path in files) and (
        not os.path.isdir("/sys/firmware") or not os.listdir("/sys/firmware")
    )


@check
def no_device_node():
    def make(kind, number):
        os.mknod("/tmp/canary-device", 0o600 | kind, number)
        try:
            if on_gvisor():  # a node of its own kernel's, with no driver behind it
                os.close(os.open("/tmp/canary-device", os.O_RDONLY))
        finally:
            os.unlink("/tmp/canary-device")

    kinds = ((stat.S_IFBLK, os.makedev(8, 0)), (stat.S_IFCHR, os.makedev(1, 1)))
    return all(fails(lambda kind=kind: make(*kind)) for kind in kinds)


@check
def only_harmless_devices():
    harmless = {
        "null",
        "zero",
        "full",
        "random",
        "urandom",
        "tty",
        "ptmx",
        "console",
        "fd",
        "stdin",
        "stdout",
        "stderr",
    }
    nodes = [entry.name for entry in os.scandir("/dev") if not entry.is_dir(follow_symlinks=False)]
    known = harmless | {"core"} | ({"fuse"} if on_gvisor() else set())
    return all(name in known or name.startswith("nvidia") for name in nodes)


@check
def no_more_gpus_than_granted():
    """Nor fewer. What brings a GPU's node in (CDI, NVIDIA's runtime) stands in no account of the engine's."""
    least, most = told("gpu_nodes")
    return least <= sum(name.startswith("nvidia") and name[6:].isdigit() for name in os.listdir("/dev")) <= most


# ------------------------------------------------------------------ rights


def status(key):
    with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
        return next(line.split(":", 1)[1].split() for line in lines if line.startswith(key + ":"))


@check
def no_capability():
    names = ("CapEff", "CapPrm", "CapInh", "CapBnd") + (() if on_gvisor() else ("CapAmb",))
    return all(int(status(name)[0], 16) == 0 for name in names)


@check
def no_new_privileges():
    # PR_GET_NO_NEW_PRIVS (linux/prctl.h)
    return ctypes.CDLL(None).prctl(39, 0, 0, 0, 0) == 1


@check
def system_calls_are_filtered():
    """By our profile; on gVisor no call of the job's reaches the machine's kernel at all, which filters gVisor's."""
    return kernel_log().startswith(b"Starting gVisor") if on_gvisor() else status("Seccomp") == ["2"]


def kernel_log():
    """The first line of the kernel's log, without its time."""
    text = ctypes.create_string_buffer(1 << 14)
    size = ctypes.CDLL(None).klogctl(3, text, len(text))
    return text.raw[: max(0, size)].split(b"\n", 1)[0].split(b"] ", 1)[-1]


@check
def not_root():
    return all(int(number) != 0 for name in ("Uid", "Gid", "Groups") for number in status(name))


@check
def cannot_become_root():
    return all(fails(act) for act in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0])))


@check
def root_is_nobody_outside():
    """Where the engine has a user namespace; gVisor's kernel does not show the machine's."""
    if not told("user_namespace") or on_gvisor():
        return True
    with open("/proc/self/uid_map", encoding="ascii") as users, open("/proc/self/gid_map", encoding="ascii") as groups:
        return all(int(line.split()[1]) != 0 for line in (*users, *groups))


@check
def own_processes_only():
    return len([name for name in os.listdir("/proc") if name.isdigit()]) <= 4


@check
def dangerous_calls_are_refused():
    library = ctypes.CDLL(None, use_errno=True)

    def refused(number):
        ctypes.set_errno(0)
        answer = library.syscall(number, -1, 0, 0, 0, 0, 0)
        return answer == -1 and (ctypes.get_errno() == EPERM or on_gvisor())

    return all(refused(number) for number in CALLS[platform.machine()].values())


# ------------------------------------------------------------------ limits


@check
def forks_are_bounded():
    """Fork until it is refused. No limit would mean as many processes as the host bears, so memory is watched too."""
    children = []
    try:
        for _ in range(min(FORKS, told("pids") * 2)):
            child = os.fork()
            if child == 0:
                signal.pause()
                os._exit(0)
            children.append(child)
    except OSError:
        return True
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)
    return False


@check
def open_files_are_bounded():
    import resource

    return (
        0 < resource.getrlimit(resource.RLIMIT_NOFILE)[1] <= 65_536 and resource.getrlimit(resource.RLIMIT_CORE)[1] == 0
    )


# ------------------------------------------------------------------ what must work


@check
def scratch_can_be_written():
    with tempfile.NamedTemporaryFile(dir="/tmp") as file, tempfile.NamedTemporaryFile(dir="/dev/shm") as shared:
        file.write(b"x" * 4096)
        shared.write(b"x" * 4096)
        file.flush()
        return os.path.getsize(file.name) == 4096


@check
def it_computes():
    return hashlib.sha256(b"abc").hexdigest().startswith("ba7816bf") and sum(range(1000)) == 499_500


def main():
    os.makedirs(TASK, exist_ok=True)
    failures = []
    for one in CHECKS:
        try:
            passed = one()
        except Exception:  # an unforeseen answer is a failed check, reported by its name
            passed = False
        if not passed:
            failures.append(one.__name__)
    with open("/data/nonce", encoding="ascii") as file:
        nonce = file.read()
    with open(f"{TASK}/metrics.json", "w", encoding="ascii") as report:
        json.dump({"checks": len(CHECKS), "failures": failures, "nonce": nonce}, report)
    open(f"{TASK}/DONE", "xb").close()
    # like a job between two tasks, it stays until it is stopped: a last look at the container finds it running
    while not os.path.exists("/in/stop"):
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
