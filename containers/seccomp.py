"""The system calls a job may make: an allow-list, by purpose, and the profile generated from it.

    python3 -m containers.seccomp > containers/seccomp.json

Everything not named here fails with EPERM. What an engine's default profile refuses, this one does too. Against that
default it leaves out keyrings, System V
IPC, NUMA placement, file handles, user and group changes, `personality`, seccomp itself, reading another process's
memory, namespaces, io_uring, and sockets other than local ones, IP (there is only a loopback) and route queries.
Only the machine's native system calls are listed: 32-bit entry points are not reachable.
"""

from __future__ import annotations

import json
import sys
from typing import Any

_ALLOWED = {
    "files": """
        access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
        fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock
        fremovexattr fsetxattr fstat fstatfs fsync ftruncate futimesat getcwd getdents getdents64 getxattr
        inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl lchown lgetxattr link linkat listxattr
        llistxattr lremovexattr lseek lsetxattr lstat mkdir mkdirat mknod mknodat newfstatat open openat openat2
        pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv removexattr rename
        renameat renameat2 rmdir sendfile setxattr splice stat statfs statx symlink symlinkat sync sync_file_range
        syncfs tee truncate umask unlink unlinkat utime utimensat utimes write writev
    """,
    "memory": """
        brk madvise map_shadow_stack membarrier memfd_create mincore mlock mlock2 mlockall mmap mprotect mremap msync
        munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages
    """,
    "processes and threads": """
        arch_prctl capget capset execve execveat exit exit_group fork futex futex_requeue futex_wait futex_waitv
        futex_wake get_robust_list get_thread_area getcpu getegid geteuid getgid getgroups getpgid getpgrp getpid
        getppid getpriority getresgid getresuid getrlimit getrusage getsid gettid getuid kill pidfd_open
        pidfd_send_signal prctl prlimit64 restart_syscall rseq sched_get_priority_max sched_get_priority_min
        sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity
        sched_setattr sched_setparam sched_setscheduler sched_yield set_robust_list set_thread_area set_tid_address
        setpgid setpriority setrlimit setsid sysinfo tgkill times tkill uname vfork wait4 waitid
    """,
    "signals and time": """
        alarm clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep pause rt_sigaction
        rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo
        setitimer sigaltstack signalfd signalfd4 time timer_create timer_delete timer_getoverrun timer_gettime
        timer_settime timerfd_create timerfd_gettime timerfd_settime
    """,
    "waiting and pipes": """
        epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 getrandom io_cancel
        io_destroy io_getevents io_setup io_submit mq_getsetattr mq_notify mq_open mq_timedreceive
        mq_timedsend mq_unlink pipe pipe2 poll ppoll pselect6 select
    """,
    "sockets, once open": """
        accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg
        sendmsg sendto setsockopt shutdown socketpair
    """,
}

# CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET (linux/sched.h): no new namespace of any kind
_NAMESPACE_FLAGS = 0x7E020000
_ENOSYS = 38
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_NETLINK_ROUTE = 0
_QUERY_PERSONALITY = 0xFFFFFFFF


def profile() -> dict[str, Any]:
    """The profile in the engine's own format (moby's `seccomp` security option, OCI `linux.seccomp`)."""
    names = sorted({name for group in _ALLOWED.values() for name in group.split()})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": names, "action": "SCMP_ACT_ALLOW"},
            _where("clone", _equals(0, 0, mask=_NAMESPACE_FLAGS)),
            # its flags lie behind a pointer that a filter cannot read; glibc falls back to clone on ENOSYS
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
            _where("personality", _equals(0, _QUERY_PERSONALITY)),
            *(_where("socket", _equals(0, family)) for family in (_AF_UNIX, _AF_INET, _AF_INET6)),
            # what `getifaddrs` asks: collective libraries look for the loopback with it
            _where("socket", _equals(0, _AF_NETLINK), _equals(2, _NETLINK_ROUTE)),
        ],
    }


def _where(name: str, *arguments: dict[str, Any]) -> dict[str, Any]:
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": list(arguments)}


def _equals(index: int, value: int, *, mask: int | None = None) -> dict[str, Any]:
    if mask is not None:
        return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
    return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}


if __name__ == "__main__":
    json.dump(profile(), sys.stdout, indent=1)
    sys.stdout.write("\n")
