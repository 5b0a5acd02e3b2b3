"""Containers that serve one task after another: the pool, and one of them."""
