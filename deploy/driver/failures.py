"""Why something that was driven did not work, with the exit code that says so."""

from __future__ import annotations


class DriverFailed(Exception):
    """A command that should have worked did not, or a program did not start. `hint` says what to do about it."""

    def __init__(self, message: str, hint: str = "", code: int = 1) -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.message = message
        self.hint = hint
        self.code = code
