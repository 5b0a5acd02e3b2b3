"""Become another program that dies with the process that started this one.

    python -m federation.hub.die_with_parent PARENT PROGRAM …

`prctl(PR_SET_PDEATHSIG)` outlives `exec`. A SuperLink left behind by a killed hub would hold the database and go on
handing out work that nobody collects.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent = int(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # it died before we asked to be told
        sys.exit(1)
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - the program and its arguments come from our own caller


if __name__ == "__main__":
    main()
