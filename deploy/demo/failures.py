"""How the demo says that it cannot go on: one line for the person at the keyboard, what to do next, the exit code."""

from __future__ import annotations

from deploy.driver.failures import DriverFailed as DemoFailed

__all__ = ["DemoFailed", "Interrupted"]


class Interrupted(Exception):
    """Ctrl-C, or a polite kill."""
