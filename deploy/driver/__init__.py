"""Drives a hub and nodes on this machine through the `cloister` command, as their people would.

What the demo and the end-to-end tests have in common: commands that end (`commands.py`), programs that last
(`services.py`), a hub, a node, and whoever signs. It is no part of the product: nothing here is installed.
"""
