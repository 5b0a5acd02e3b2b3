"""Flower's log, handed over to the process's own: Flower hangs a handler on its logger the moment it is imported, which
prints its texts (an exception's, a stranger's reason) past every form the process has set up."""

from __future__ import annotations

import logging


def hand_over() -> None:
    """Take Flower's own handlers away, and leave its records, errors alone, to the root logger's."""
    flower = logging.getLogger("flwr")
    for handler in list(flower.handlers):
        flower.removeHandler(handler)
    flower.propagate = True
    flower.setLevel(logging.ERROR)
    # its HTTP client has a line for every poll
    logging.getLogger("httpx").setLevel(logging.WARNING)
