"""How the installer speaks: talk on stderr, what was asked for on stdout, and a fault in two lines."""

from __future__ import annotations

import sys

USAGE, REFUSED, BROKEN, NOT_NOW = 2, 3, 4, 5


class Fault(Exception):
    """What ends a run: one line that says what is wrong, one that says what to do, and the exit code."""

    def __init__(self, message: str, hint: str = "", code: int = NOT_NOW) -> None:
        super().__init__(message)
        self.message, self.hint, self.code = message, hint, code


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def complain(fault: Fault) -> None:
    say(f"error: {fault.message}")
    if fault.hint:
        say(f"hint: {fault.hint}")


def last_line(text: str) -> str:
    """The last line of a program's talk that says anything, for a message of one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines or ["it said nothing"])[-1][:300]
