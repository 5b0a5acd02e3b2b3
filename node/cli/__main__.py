"""`python -m node.cli`: how the supervisor starts the node's processes."""

from node.cli import main

main()
