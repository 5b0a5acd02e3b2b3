"""`cloister node init`, `serve` and what these start."""

from __future__ import annotations

from typing import Annotated

import typer

from node.cli.admin import load
from node.cli.options import NodeConfig
from node.cli.output import say


def init(config: NodeConfig) -> None:
    """Make the state folder, its owners and modes, and the node's keys. Safe to repeat: what is there is kept."""
    from node.cli.it.enrol import write_audit_keys
    from node.host.migrate_state import is_old
    from node.host.placeholders import check_filled_in
    from node.host.state import migrate_state, prepare_state
    from node.host.supervisor import only_one

    loaded = load(config)
    check_filled_in(loaded)
    if is_old(loaded):
        with only_one(loaded):
            migrate_state(loaded)
    prepare_state(loaded)
    write_audit_keys(loaded)
    say(f"the node's state is in {loaded.state_dir}")


def serve(config: NodeConfig) -> None:
    """Run the node until SIGTERM: core, broker, intake and link, each its own process (as root: its own user)."""
    from node.host.logs import set_up
    from node.host.supervisor import Supervisor

    loaded = load(config)
    set_up("supervisor", level=loaded.logging.level, form=loaded.logging.format)
    Supervisor(loaded, config).run()


def guard(config: NodeConfig) -> None:
    """Guard the state folder of a node that runs as services; their business."""
    from node.host.guard import guard as run_guard
    from node.host.logs import set_up
    from node.host.notify import Notifier

    loaded = load(config)
    set_up("guard", level=loaded.logging.level, form=loaded.logging.format)
    run_guard(loaded, Notifier.from_environment())


def process(role: Annotated[str, typer.Argument(help="which of the node's processes")], config: NodeConfig) -> None:
    """Run one of the node's processes; the supervisor's business."""
    from node.host.start import start

    start(role, load(config))
