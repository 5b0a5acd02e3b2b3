"""A link with a played core as one process: `python -m tests.sim.node hub.toml SITE [--die-at-hand-over]`."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from federation.client.link import run_link
from federation.client.ports import Delivery
from node.host.logs import set_up
from tests.federation.ground import reopened
from tests.sim.core import FakeCore


class Dying(FakeCore):
    """A core whose process is killed when it is handed its first instruction."""

    async def deliver_instruction(self, signed: str, reply_context: bytes, model: AsyncIterator[bytes]) -> Delivery:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("dead")


async def run(config: Path, site: str, dies: bool) -> None:
    town = reopened(config)
    known = town.core(site)
    core = (Dying if dies else FakeCore)(site, known.release, known.instruction_keys, known.specs, known.spool)
    task = asyncio.create_task(run_link(town.link_config(site), core))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await asyncio.gather(task, return_exceptions=True)


if __name__ == "__main__":
    set_up("link", level="info", form="text")
    asyncio.run(run(Path(sys.argv[1]), sys.argv[2], "--die-at-hand-over" in sys.argv))
