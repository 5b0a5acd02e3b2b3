"""Options that several commands share.

Where an installed machine keeps its two configurations is said here and nowhere else: there no flag and no variable is
needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="print the answer as JSON on stdout")]
# FHS 3.0 section 3.7: a host's own configuration
NODE_FILE, HUB_FILE = Path("/etc/cloister/node.toml"), Path("/etc/cloister/hub.toml")
NODE_VARIABLE, HUB_VARIABLE = "CLOISTER_NODE_CONFIG", "CLOISTER_HUB_CONFIG"

NodeConfig = Annotated[
    Path,
    typer.Option(
        "--config", envvar=NODE_VARIABLE, help="the node's TOML file", default_factory=lambda: NODE_FILE,
        show_default=str(NODE_FILE),
    ),
]  # fmt: skip
HubConfigPath = Annotated[
    Path,
    typer.Option(
        "--config", envvar=HUB_VARIABLE, help="the hub's TOML file", default_factory=lambda: HUB_FILE,
        show_default=str(HUB_FILE),
    ),
]  # fmt: skip
Out = Annotated[Path, typer.Option("--out", help="the file to write; one that is there is not overwritten")]
DefacedBy = Annotated[
    str,
    typer.Option(
        "--defaced-by",
        help="you say that these images were defaced before, and by what (a program and its version: pydeface-2.1);"
        " then a head scan is not held, and it is on record that you said so",
    ),
]
SignWith = Annotated[
    Path | None,
    typer.Option("--key", help="your private key file: you sign what you ask, and the audit log names you"),
]
Key = Annotated[Path, typer.Option("--key", help="your private key file (mode 0600)")]
