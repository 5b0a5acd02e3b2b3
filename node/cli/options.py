"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# FHS 3.0 section 3.7: a host's own configuration
NODE_FILE = Path("/etc/cloister/node.toml")

Json = Annotated[bool, typer.Option("--json", help="print the answer as JSON on stdout")]
NodeConfig = Annotated[
    Path, typer.Option("--config", envvar="CLOISTER_NODE_CONFIG", help="the node's TOML file", show_envvar=True)
]
HubConfigPath = Annotated[
    Path, typer.Option("--config", envvar="CLOISTER_HUB_CONFIG", help="the hub's TOML file", show_envvar=True)
]
Out = Annotated[Path, typer.Option("--out", help="the file to write; one that is there is not overwritten")]
SignWith = Annotated[
    Path | None,
    typer.Option("--key", help="your private key file: you sign what you ask, and the audit log names you"),
]
Key = Annotated[Path, typer.Option("--key", help="your private key file (mode 0600)")]
