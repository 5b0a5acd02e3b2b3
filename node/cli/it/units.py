"""`cloister node units` and `cloister hub units`: what the system's service manager needs, as text."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.admin import load
from node.cli.options import HubConfigPath, Json, NodeConfig
from node.cli.output import say, show

if TYPE_CHECKING:
    from node.host.installed import Installed

Folder = Annotated[
    Path | None,
    typer.Option("--out", help="write the files below this folder (/ for the system itself), not to stdout"),
]
Python = Annotated[
    Path | None, typer.Option("--python", help="the interpreter that the services run; this command's own if not given")
]
_RESOLVERS = Path("/etc/resolv.conf")


def node_units(
    config: NodeConfig,
    out: Folder = None,
    python: Python = None,
    hub_address: Annotated[
        list[str] | None, typer.Option(help="an address of the hub's, where its name is not to be asked for (repeat)")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the node's systemd units, system users, log rules and firewall rows from its configuration.

    The hub's name is asked for now: what it stands for is all that the link may reach.
    """
    from node.host.installed import UNITS
    from node.host.processes import named
    from node.host.systemd import Machine, units

    machine = Machine(
        python=_python(python),
        config_file=config.absolute(),
        resolve=_addresses,
        hub=tuple(hub_address or ()),
        resolvers=tuple(resolvers(_RESOLVERS)),
        kept=tuple(kept(UNITS / named("link").unit)),
    )
    _hand_out(units(load(config), machine), out, as_json=as_json)


def hub_units(
    config: HubConfigPath,
    out: Folder = None,
    python: Python = None,
    user: Annotated[str, typer.Option(help="the system user that the hub runs as")] = "cloister-hub",
    as_json: Json = False,
) -> None:
    """Make the hub's systemd units, system user, log rules and firewall rows from its configuration."""
    from federation.hub.config import load_config
    from node.host.hub_systemd import HubMachine, units

    _hand_out(units(load_config(config), HubMachine(_python(python), config.absolute(), user)), out, as_json=as_json)


def resolvers(file: Path) -> list[str]:
    """The addresses that this machine asks for names."""
    try:
        lines = file.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return []
    named = [words[1] for words in map(str.split, lines) if len(words) > 1 and words[0] == "nameserver"]
    return [address.partition("%")[0] for address in named]


def kept(unit: Path) -> list[str]:
    """The addresses that a unit which is there lets its service reach."""
    try:
        lines = unit.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return []
    name = "IPAddressAllow="
    return [address for line in lines if line.startswith(name) for address in line.removeprefix(name).split()]


def _addresses(host: str) -> Sequence[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return [str(address[4][0]).partition("%")[0] for address in found]


def _python(given: Path | None) -> Path:
    return Path(os.path.abspath(given if given is not None else sys.executable))


def _hand_out(made: Installed, out: Path | None, *, as_json: bool) -> None:
    from durable.files import replace_file

    for warning in made.warnings:
        say(f"warning: {warning}")
    if out is not None:
        for file in made.files:
            path = out / file.path.relative_to("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, file.text.encode("utf-8"), mode=int(file.mode, 8))
        say(f"wrote {len(made.files)} files below {out}")
    if as_json:
        show(_plain(made), as_json=True)
    elif out is None:
        sys.stdout.write("\n".join(f"# {file.path}\n{file.text}" for file in made.files))


def _plain(made: Installed) -> dict[str, Any]:
    def text(value: object) -> object:
        return str(value) if isinstance(value, Path) else value

    listed = ("files", "users", "folders", "firewall")
    rows = {
        name: [{key: text(value) for key, value in asdict(row).items()} for row in getattr(made, name)]
        for name in listed
    }
    return {"target": made.target, "units": list(made.units), **rows}
