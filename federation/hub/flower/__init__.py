"""The hub's Flower adapter: its SuperLink's APIs, a grid that polls fast, and Flower's own FedAvg.

The only package of the hub that knows `flwr`. The classes it uses beyond the public API are undocumented internals of
1.42.0, held by `tests/federation/test_flwr_surface.py`.
"""
