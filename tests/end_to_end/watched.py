"""A node whose processes tell what they have loaded, and whose core can open no Internet socket.

    python -P watched.py REPORTS serve CONFIG            the supervisor, with the processes below
    python -P watched.py REPORTS process ROLE CONFIG     one process: what `cloister node process ROLE` is

Every process writes the top-level names in its `sys.modules` to `REPORTS/ROLE`, a few times a second.

Core runs under a system call filter: the kernel answers `socket(AF_INET or AF_INET6, …)` with EACCES. gRPC's C library
makes two such sockets when it is loaded, to see what the kernel can do, and neither binds nor connects them: refused,
it goes on. Whatever asks for one from Python ends the process.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

# linux/filter.h, linux/seccomp.h, linux/audit.h
_LOAD, _IS, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO, _EACCES = 0x7FFF0000, 0x00050000, 13
_NUMBER, _ARCHITECTURE, _FAMILY = 0, 4, 16  # offsets in struct seccomp_data
# machine: its number in the kernel's audit, and of its system call `socket`
_MACHINES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_AF_INET, _AF_INET6 = 2, 10
# the exit status of a core that asked for an Internet socket
ASKED = 77


def forbid_the_internet() -> None:
    """From here on no thread and no child of this process gets an Internet socket; whoever asks in Python ends it."""
    architecture, number = _MACHINES[platform.machine()]
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE), (_IS, 0, 6, architecture),
        (_LOAD, 0, 0, _NUMBER), (_IS, 0, 3, number),
        (_LOAD, 0, 0, _FAMILY), (_IS, 2, 0, _AF_INET), (_IS, 1, 0, _AF_INET6),
        (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | _EACCES),
    ]  # fmt: skip
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    filter_ = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(program))
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filter_)
    if done != 0:
        raise OSError(ctypes.get_errno(), "no filter of system calls")
    sys.addaudithook(_end_who_asks)


def _end_who_asks(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.__new__" and arguments[1] in (_AF_INET, _AF_INET6):
        os._exit(ASKED)


def tell(report: Path) -> None:
    while True:
        loaded = sorted({name.partition(".")[0] for name in list(sys.modules)} - sys.stdlib_module_names)
        draft = report.with_suffix(".new")
        draft.write_text("\n".join(loaded), "utf-8")
        draft.replace(report)
        time.sleep(0.2)


def process(reports: Path, role: str, config: str) -> None:
    if role == "core":
        forbid_the_internet()
    threading.Thread(target=tell, args=[reports / role], daemon=True).start()
    sys.argv = ["cloister", "node", "process", role, "--config", config]
    from node.cli import main

    main()


def serve(reports: Path, config: Path) -> None:
    from node.host.config import load_config
    from node.host.logs import set_up
    from node.host.supervisor import Supervisor

    def command(role: str) -> Sequence[str]:
        return [sys.executable, "-P", __file__, str(reports), "process", role, str(config)]

    reports.chmod(0o777)  # each process has a user of its own
    loaded = load_config(config)
    set_up("supervisor", level=loaded.logging.level, form=loaded.logging.format)
    Supervisor(loaded, config, command=command).run()


if __name__ == "__main__":
    if sys.argv[2] == "serve":
        serve(Path(sys.argv[1]), Path(sys.argv[3]))
    elif sys.argv[2] == "socket":  # the filter's own positive control
        import socket

        forbid_the_internet()
        socket.socket(socket.AF_UNIX).close()
        family = {"4": socket.AF_INET, "6": socket.AF_INET6}[sys.argv[3]]
        print(ctypes.CDLL(None, use_errno=True).socket(family, socket.SOCK_STREAM, 0), ctypes.get_errno(), flush=True)
        socket.socket(family)
    else:
        process(Path(sys.argv[1]), sys.argv[3], sys.argv[4])
