"""What a command costs that a person types often: processor seconds of a process, and modules that it loads.

    python -m tests.bench.commands [TIMES] [--json]

Each command is run once to warm up and TIMES times (5) more; the median is shown. A node's questions go to one that is
there and answers each with "not now", a hub's to one without sites. Seconds of a processor and not of a clock: they say
the same on a busy machine, or nearly.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.figures import show
from tests.node.cli.test_loaded_modules import HUB, HUB_OTHERS, NODE_OTHERS, loaded, readings
from tests.sim.asleep import asleep

HELPS = ("--help", "node --help", "hub --help", "node status --help")
CHECKS = ("check",)
COLUMNS = ("command", "processor_s", "modules")


def main() -> None:
    times = int(next((word for word in sys.argv[1:] if word.isdigit()), "5"))
    with tempfile.TemporaryDirectory() as folder, asleep(Path(folder)) as node:
        hub = Path(folder) / "hub.toml"
        hub.write_text(HUB.format(state=Path(folder) / "hub", key="ab" * 32))
        loaded("hub", "init", "--config", hub)
        commands = [words.split() for words in HELPS]
        commands += [["node", *words.split(), "--config", node] for words in sorted({*readings("node")} - NODE_OTHERS)]
        commands += [["hub", *words.split(), "--config", hub] for words in sorted({*readings("hub")} - HUB_OTHERS)]
        commands += [[*words.split(), "--config", node] for words in CHECKS]
        rows = [_row([str(word) for word in words], times) for words in commands]
    show("commands", COLUMNS, rows, as_json="--json" in sys.argv, times=times)


def _row(words: list[str], times: int) -> dict[str, object]:
    _, modules = loaded(*words)  # also the warm-up
    seconds = statistics.median(_processor_s(words) for _ in range(times))
    named = " ".join(words[: words.index("--config")] if "--config" in words else words)
    return {"command": named, "processor_s": round(seconds, 2), "modules": len(modules)}


def _processor_s(words: list[str]) -> float:
    command = [str(Path(sys.executable).with_name("cloister")), *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, used = os.wait4(process.pid, 0)
    process.returncode = 0  # waited for
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
