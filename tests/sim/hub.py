"""A hub as a process of its own: `python -m tests.sim.hub hub.toml`. Prints `ready` once nodes may connect."""

import asyncio
import sys
from pathlib import Path

from federation.hub.config import load_config
from federation.hub.service import serve_hub
from federation.hub.state import HubState
from node.host.logs import set_up


def main() -> None:
    set_up("hub", level="info", form="text")
    hub = HubState(load_config(Path(sys.argv[1])))
    asyncio.run(serve_hub(hub, lambda: print("ready", flush=True)))


if __name__ == "__main__":
    main()
