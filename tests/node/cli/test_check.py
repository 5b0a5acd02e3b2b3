"""`cloister check` about the sandbox: what the canary found last, when, and what that means."""

from __future__ import annotations

from node.cli.check import _sandbox


def test_a_sandbox_that_held_says_when() -> None:
    found = _sandbox("held", 7200.0)
    assert (found["state"], found["detail"]) == ("ok", "held 2.0 h ago")


def test_a_sandbox_that_failed_is_missing_and_says_what_that_stops() -> None:
    found = _sandbox("failed", 60.0)
    assert found["state"] == "missing"
    assert "no job runs" in found["detail"]


def test_a_sandbox_that_was_never_tried_is_a_warning() -> None:
    assert _sandbox("unknown", None)["state"] == "warning"
