"""Flower's SuperLink on a listening socket that its parent hands it, in place of a TCP port.

    python -m federation.hub.flower.superlink_program DESCRIPTOR --isolation process …

`flower-superlink` knows a host and a port only, and whoever reaches that port lists and stops runs without a
credential. This is its own start (`flwr.superlink.cli.flower_superlink`) up to the last line, in which uvicorn is told
where to listen. Should a new Flower begin in another way, this fails before it listens anywhere.
"""

from __future__ import annotations

import importlib
import sys

import uvicorn
from flwr.supercore.http_logging import get_uvicorn_log_config
from flwr.superlink.main import create_app

# the package has a function of the module's name
flower_superlink = importlib.import_module("flwr.superlink.cli.flower_superlink")


def main() -> None:
    descriptor = int(sys.argv.pop(1))
    config = flower_superlink._parse_superlink_lifespan_config()
    app = create_app(config, flower_superlink.SuperLinkLifespan)
    logs = get_uvicorn_log_config(flower_superlink.console_handler.level)
    uvicorn.run(app=app, fd=descriptor, access_log=True, log_config=logs, workers=1)


if __name__ == "__main__":
    main()
