"""`python -m node.cli`: the command without its script; how the supervisor starts the node's processes."""

from __future__ import annotations

from node.cli import main

if __name__ == "__main__":
    main()
