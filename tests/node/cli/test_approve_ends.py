"""`cloister hub node approve` whose session is lost: the invitation ends with it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer

from mediator.errors import NotNow
from node.cli.coordinator import approve


class Hub:
    """A hub that the site never comes to, and whose operator's session ends."""

    def __init__(self, number: int) -> None:
        self.signal, self.open, self.invitations = number, False, self

    def check_invitable(self, site: str, *, again: bool) -> None: ...

    def invite(self, site: str, words: str, *, again: bool) -> int:
        self.open = True
        return 7

    def state(self, number: int) -> tuple[str, str]:
        assert signal.getsignal(self.signal) is not signal.SIG_DFL, "this process would end here"
        signal.raise_signal(self.signal)
        return "open", ""

    def uninvite(self, number: int) -> None:
        assert number == 7
        self.open = False


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_no_invitation_stays_open_when_the_session_is_lost(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    hub: Any = Hub(number)

    @contextmanager
    def opened(_: Path) -> Iterator[Any]:
        yield hub

    monkeypatch.setattr(approve, "opened", opened)
    monkeypatch.setattr(approve, "_ask", lambda *_words, **_how: "six words")
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(typer.Exit) as ended:
            approve.approve(Path("hub.toml"), site="delft", wait=0.0)
        assert ended.value.exit_code == 128 + number and not hub.open
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize(
    ("said", "hint"),
    [("", "does it run"), ("another_site", "give --site"), ("other_hub", "this hub's keys"), ("refused", "new keys")],
)
def test_whoever_came_instead_is_what_the_last_word_is_about(
    said: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub: Any = Hub(0)
    monkeypatch.setattr(hub, "state", lambda _number: ("closed", said))
    with pytest.raises(NotNow) as raised:
        approve._by_words(hub, "delft", "six words", 0.0, again=False)
    assert hint in raised.value.hint and not hub.open
