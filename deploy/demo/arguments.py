"""What `deploy/demo.sh` is asked for, and whether it can be done there: looked at before minutes of preparation.

Python's own library alone: `python3 -m deploy.demo.arguments` runs before our environment exists.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from deploy.demo.failures import DemoFailed
from deploy.demo.report import ROUNDS_AT_LEAST
from deploy.demo.workplace import check_vacant, choose_root

REPOSITORY = Path(__file__).resolve().parents[2]


def arguments(words: list[str]) -> argparse.Namespace:
    """What `deploy/demo.sh --help` describes, and what that script adds about the time it took."""
    parser = argparse.ArgumentParser(prog="deploy/demo.sh", add_help=False)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--docs", action="store_true")
    parser.add_argument("--stop", action="store_true")
    parser.add_argument("--spent", action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, default=time.time(), help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if not ROUNDS_AT_LEAST <= given.rounds <= 50:
        parser.error(f"--rounds is {ROUNDS_AT_LEAST} to 50")
    return given


def main(words: list[str]) -> int:
    """0 where the demo can begin. Changes nothing."""
    given = arguments(words)
    try:
        check_vacant(choose_root(given.work, REPOSITORY, as_root=os.geteuid() == 0)[0])
    except DemoFailed as failed:
        print(f"error: {failed.message}\nhint: {failed.hint}", file=sys.stderr)
        return failed.code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
