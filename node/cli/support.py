"""`cloister support`: what one may hand to who helps, without handing out anything of a patient's."""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from mediator.errors import CloisterError
from node.cli.files import write_new
from node.cli.options import HUB_FILE, NODE_FILE
from node.cli.output import plain, say

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _group() -> None:
    """One command so far, and it keeps its name."""


@app.command("bundle")
def bundle(
    config: Annotated[
        Path | None,
        typer.Option("--config", help=f"the node's or hub's TOML file (default: {NODE_FILE}, or {HUB_FILE})"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="write the bundle; without it, what would be written is shown")
    ] = None,
) -> None:
    """Versions, findings of the check, configuration without its texts, counts, states of units, kinds of log lines.

    Never a file's name, a path, a host, a person or a message. Without --out nothing is written: read it first.
    """
    text = json.dumps(content(config), indent=2, ensure_ascii=True)
    if out is None:
        sys.stdout.write(text + "\n")
        say("this is all that the bundle would hold; write it with --out FILE")
        return
    write_new(out, text)
    say(f"wrote {out}: read it before you send it")


def content(config: Path | None) -> dict[str, Any]:
    """The bundle."""
    from node.cli import support_content as allowed
    from node.cli.config import found_file, values
    from node.cli.config_file import fields, kind_of, read_toml

    said = versions()
    path = config or found_file()
    try:
        _, toml = read_toml(path)
        kind = kind_of(toml)
        rows = allowed.configuration(values(kind, toml, path), fields(kind))
    except CloisterError as error:  # a broken configuration is what help may be wanted for
        return {"format": 1, "versions": said, "configuration": error.code, "units": allowed.units()}
    read = kind.read(toml)
    folder = path.parent / read.state_dir  # type: ignore[attr-defined]
    return {
        "format": 1,
        "whose": kind.name,
        "versions": said,
        "findings": allowed.findings(_findings(kind.name, path), allowed.known_findings()),
        "configuration": rows,
        "counts": allowed.counts(_status(path)) if kind.name == "node" else {},
        "units": allowed.units(),
        "log": allowed.log_lines(allowed.log_texts(folder / "logs")),
    }


def versions() -> dict[str, str]:
    from node.cli import support_content as allowed

    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    own = version("cloister")
    return allowed.versions(release, platform.release(), platform.machine(), platform.python_version(), own)


def _findings(whose: str, path: Path) -> list[dict[str, Any]]:
    from node.cli.coordinator import check as of_hub
    from node.cli.it import check as of_node

    found: list[dict[str, Any]] = []
    try:
        for each in (of_hub if whose == "hub" else of_node).findings(path):
            found.append(each)
    except CloisterError:
        found.append({"what": "configuration", "state": "missing"})
    return found


def _status(path: Path) -> dict[str, Any]:
    from node.cli.admin import client_for, load
    from node.ipc.messages import Empty
    from node.ipc.node import STATUS

    try:
        with client_for(load(path), STATUS) as client:
            answer: dict[str, Any] = plain(client.call(STATUS, Empty(), timeout_s=5.0))
            return answer
    except CloisterError as error:
        return {"core_answers": error.exit_code == 0}
