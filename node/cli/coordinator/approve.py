"""`cloister hub node approve`: six words that a site reads out by telephone, or its request file, let it in."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from mediator.errors import Malformed, NotNow, UsageFault
from mediator.signatures import VerifyKey
from node.cli.coordinator.desk import opened
from node.cli.files import check_new, read_bytes, write_new
from node.cli.options import HubConfigPath
from node.cli.output import say

if TYPE_CHECKING:
    from federation.hub.state import HubState

_LOOK_S = 0.2
# what the operator tells the site, who is on the telephone
_SAID: Mapping[str, str] = {
    "other_hub": "the site's configuration trusts other keys than this hub's: let it compare hub and witnesses in its"
    " trust section with what `cloister hub keys` prints, and begin again",
    "another_site": "these words came with a request of another site: the name in its configuration is another",
    "refused": "the request was refused: a key in it was revoked, or is another site's; the site: cloister node enrol"
    " --new-keys",
}

# what to look at when nobody was let in: who came all the same, or why nobody did
_CAME: Mapping[str, str] = {
    "other_hub": "once the site's [trust] holds this hub's keys, both begin again",
    "another_site": "give --site as the site's own configuration has it: its `cloister node enrol` prints it",
    "refused": "the site makes new keys, and both begin again",
}
_NOT_SEEN = "does it run `cloister node enrol`, and reach this hub's port?"


def approve(
    config: HubConfigPath,
    request: Annotated[
        Path | None, typer.Argument(help="the site's request.json, where it cannot reach this hub by itself")
    ] = None,
    site: Annotated[str | None, typer.Option("--site", help="the site's name, as its permits call it")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="with a request file: the bundle to write")] = None,
    request_id: Annotated[
        str | None, typer.Option(help="with a request file: the request id that the site read out")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="bring back a site that was revoked, with new keys")] = False,
    wait: Annotated[float, typer.Option("--wait", help="seconds to wait for the site", min=0)] = 1800.0,
) -> None:
    """Enrol a site, which reads out six words by telephone (`cloister node enrol`): type them, and it is let in.

    While this command waits, and a minute longer, the port takes the one request that the words stand for. With a
    request file instead of a site it asks for the request id, and writes the bundle to send back.
    """
    if request is not None:
        _by_files(config, request, out, request_id, again=again)
        return
    if out is not None or request_id is not None:
        raise UsageFault("--out and --request-id go with a request file", hint="give the site's request.json as well")
    site = site or _ask("the site's name", "--site")
    with opened(config) as hub, _ending_in_order():
        hub.check_invitable(site, again=again)  # before anybody reads out anything
        _by_words(hub, site, _ask("telephone the site; the six words it reads out", "", shown=False), wait, again=again)


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Go through every `finally` when a session is lost or somebody ends this process: no invitation stays open."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise typer.Exit(128 + number)

    # one that is ignored, under nohup say, stays so
    before = {each: signal.getsignal(each) for each in (signal.SIGHUP, signal.SIGTERM)}
    taken = [each for each, handler in before.items() if handler is signal.SIG_DFL]
    for each in taken:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each in taken:
            signal.signal(each, signal.SIG_DFL)


def _by_words(hub: HubState, site: str, words: str, wait_s: float, *, again: bool) -> None:
    number = hub.invite(site, words, again=again)
    say(f"waiting for {site}, which has these words; keep this running")
    ends, told = time.monotonic() + wait_s, ""
    try:
        while True:
            state, said = hub.invitations.state(number)
            if state == "done":
                ends_on = next(row["certificate_expires"] for row in hub.nodes() if row["site"] == site)
                say(f"enrolled {site}; its certificate ends {ends_on[:10]}, and is renewed by itself")
                return
            if said and said != told:
                say(_SAID[said])
                told = said
            if state == "closed" or time.monotonic() > ends:
                raise NotNow(f"{site} did not come", hint=_CAME.get(told, _NOT_SEEN))
            time.sleep(_LOOK_S)
    finally:
        hub.uninvite(number)


def _by_files(config: Path, request: Path, out: Path | None, request_id: str | None, *, again: bool) -> None:
    from federation.control import EnrolmentRequest, decode

    if out is None:
        raise UsageFault("the bundle must have somewhere to go", hint="--out bundle.json")
    check_new(out)  # a site is enrolled once
    raw = read_bytes(request, limit=1 << 20)
    try:
        shown = decode(EnrolmentRequest, raw)
    except Malformed as error:
        hint = "it wants the file that the site's `cloister node enrol request` wrote"
        raise Malformed(f"{request}: {error.message}", hint=error.hint or hint) from error
    release, audit = VerifyKey.from_text(shown.release_key), VerifyKey.from_text(shown.audit_key)
    say(f"site {shown.site}: release key id {release.key_id}, audit key id {audit.key_id}")
    if request_id is None:
        if not sys.stdin.isatty():
            raise UsageFault("there is nobody to ask for the request id", hint="--request-id, as the site read it out")
        request_id = _ask("telephone the site; the request id it reads out", "--request-id")
    with opened(config) as hub:
        bundle = hub.approve(raw, request_id, again=again)
    write_new(out, bundle.decode("utf-8"))
    say(f"enrolled; send {out} back to the site")


def _ask(what: str, option: str, *, shown: bool = True) -> str:
    """What somebody types, or one line of what is piped in where no option could say it."""
    if sys.stdin.isatty():
        answer: str = typer.prompt(what, err=True)
        return answer
    line = "" if shown and option else sys.stdin.readline(1000)
    if not line.strip():
        raise UsageFault(f"there is nobody to ask: {what}", hint=option or "pipe them in, on one line")
    return line
