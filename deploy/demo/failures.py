"""How the demo says that it cannot go on."""

from __future__ import annotations


class DemoFailed(Exception):
    """One line for the person at the keyboard, what to do next, and the exit code (0-5 as everywhere in Cloister)."""

    def __init__(self, message: str, hint: str, code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


class Interrupted(Exception):
    """Ctrl-C, or a polite kill."""
