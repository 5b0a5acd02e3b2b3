"""What a process that reads files of strangers may take: so that one file cannot take the machine."""

from __future__ import annotations

import resource

# What such a process stays below, as resident memory: the tests hold it to that. The limit that is set is below.
MAX_PROCESS_BYTES = 300_000_000
# Address space is more than memory: room over what the interpreter and its libraries have mapped already.
HEADROOM_BYTES = 1 << 28


def limit_memory(headroom_bytes: int = HEADROOM_BYTES) -> None:
    """From now on this process gets at most `headroom_bytes` more; beyond, Python raises `MemoryError`.

    Call it in a worker after its imports. The engine answers `too_large` for a file that runs into it.
    """
    with open("/proc/self/statm", "rb") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (mapped + headroom_bytes, hard))
