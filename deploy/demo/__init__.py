"""The demo: three hospitals and a hub on one machine, driven through the `cloister` command line as people would.

It is no part of the product: nothing here is installed, and everything it starts are the real parts.
"""
