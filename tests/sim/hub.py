"""A hub as a process of its own: `python -m tests.sim.hub hub.toml`. Prints `ready` once nodes may connect.

`--speaks N`: it is of another protocol than this release. One of protocol 1 has no word for it and no such question.
"""

import argparse
import asyncio
import signal
from pathlib import Path

from aiohttp import web

from federation import control, protocol
from federation.hub.config import load_config
from federation.hub.ingress import Handler
from federation.hub.service import Service
from federation.hub.state import HubState
from node.host.logs import set_up


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("--speaks", type=int, default=protocol.PROTOCOL)
    chosen = parser.parse_args()
    set_up("hub", level="info", form="text")
    hub = HubState(load_config(chosen.config))
    asyncio.run(serve(hub, chosen.speaks))


async def serve(hub: HubState, speaks: int) -> None:
    service, ending = Service(hub, speaks), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    if speaks == 1:
        service.app.middlewares.append(without_hello)
        service.app.on_response_prepare.append(says_nothing)
    await service.run(ending, lambda: print("ready", flush=True))


@web.middleware
async def without_hello(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.path == control.HELLO:
        raise web.HTTPNotFound
    return await handler(request)


async def says_nothing(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.pop(protocol.HEADER, None)


if __name__ == "__main__":
    main()
