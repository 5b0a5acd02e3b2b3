"""The guard: what the supervisor does besides starting children, where the system's service manager starts them.

It prepares the state folder, holds the node's pid file, and looks at the state folder while the node runs. Every
process's unit is bound to its unit, so that nobody works any more when it has ended.
"""

from __future__ import annotations

import logging
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mediator.errors import IntegrityBroken, UsageFault
from node.host.config import NodeConfig
from node.host.notify import Notifier
from node.host.processes import PROCESSES, STATE_CHANGED, Process
from node.host.state import changed_since
from node.host.supervisor import LAST_RECORD_S, STATE_CHECK_S, only_one, sound_folders, wakeups

log = logging.getLogger(__name__)

_SYSTEMCTL = Path("/usr/bin/systemctl")
_SYSTEMCTL_S = 5.0

Tell = Callable[[str], None]


def guard(
    config: NodeConfig, notifier: Notifier, *, tell: Tell | None = None, processes: Sequence[Process] = PROCESSES
) -> None:
    """Until SIGTERM. `tell` sends STATE_CHANGED to the main process of a unit.

    Raises `UsageFault` where the state folder is not prepared, `NotNow` where the node runs already, and
    `IntegrityBroken` when the state folder changed under it: the service manager does not start any of them again
    before a person has looked.
    """
    if not config.users.separate or os.geteuid() != 0:
        raise UsageFault("the guard is for units, where each process has its own user", hint="cloister node serve")
    tell = tell or _tell
    with only_one(config, by="units"), wakeups() as (ending, wait):
        folders = sound_folders(config, processes)
        notifier.ready()
        while not ending():
            notifier.alive()
            wait(STATE_CHECK_S)
            if wrong := changed_since(folders):
                log.critical("the state folder has changed under the running node, which stops: %s", "; ".join(wrong))
                for process in processes:
                    if process.records_changes:
                        tell(process.unit)
                        time.sleep(LAST_RECORD_S)
                raise IntegrityBroken(
                    f"the state folder is not as it must be: {wrong[0]}",
                    hint="see who changed it, then: cloister node init",
                )
        notifier.stopping()


def _tell(unit: str) -> None:
    command = [str(_SYSTEMCTL), "kill", "--kill-whom=main", f"--signal={STATE_CHANGED.name}", unit]
    try:
        subprocess.run(command, check=True, timeout=_SYSTEMCTL_S, stdin=subprocess.DEVNULL, capture_output=True)
    except (OSError, subprocess.SubprocessError) as error:  # the node ends all the same, without that record
        log.error("%s could not be told: %s", unit, type(error).__name__)
