"""The lines of a check: what was looked at, how it stands, and what mends it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import typer

from mediator.errors import NotNow
from mediator.images import printable
from node.cli.output import data, show, talk

# `unknown`: this user may not look there, or it cannot be known, which is no fault of the node's
State = Literal["ok", "warning", "missing", "unknown"]
# a detail may hold what somebody else wrote, such as a certificate that nobody has verified
_MAX_CHARACTERS = 10_000
_STYLES: dict[str, dict[str, Any]] = {
    "ok": {"fg": "green"}, "warning": {"fg": "yellow"}, "missing": {"fg": "red"}, "unknown": {"dim": True}
}  # fmt: skip


def finding(what: str, state: State, detail: str, mend: str = "") -> dict[str, Any]:
    """One line. Who is told that something is wrong is told what mends it: without that it is a defect of ours."""
    if state in ("warning", "missing") and not mend:
        raise ValueError(f"a finding without what mends it: {what}")
    return {"what": what, "state": state, "detail": detail, "mend": mend}


def report(findings: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Print them. Raises `Exit` with code 5 while anything is missing."""
    if as_json:
        show(list(findings), as_json=True)
    else:
        for each in findings:
            mark = data.styled(f"{each['state']:8}", **_STYLES[each["state"]])
            data.print(f"{mark} {_line(each['what'] + ': ' + each['detail'])}")
            if each["mend"]:
                data.print(f"{'':8} -> {_line(each['mend'])}")
    if any(each["state"] == "missing" for each in findings):
        talk.print("error: something is missing, see above")
        raise typer.Exit(NotNow.exit_code)


def _line(text: str) -> str:
    """A text on one line, without what a terminal obeys."""
    return printable(text, _MAX_CHARACTERS)
