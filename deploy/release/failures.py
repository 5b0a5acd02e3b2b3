"""What can stop a release, in words."""

from __future__ import annotations


class Stopped(Exception):
    """A release cannot be made. The text is for the person at the keyboard; the hint says what to do."""

    def __init__(self, what: str, hint: str, code: int = 2) -> None:
        super().__init__(what)
        self.hint = hint
        self.code = code
