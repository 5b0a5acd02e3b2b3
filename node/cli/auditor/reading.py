"""`cloister audit show`, `tail`, `search`, `export`: what a log says, in words, and how far it is proven."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Annotated

import typer

from mediator.audit import decode_checkpoint
from mediator.errors import Malformed
from node.cli.auditor import forms
from node.cli.auditor.log_folder import Log, LogLine, newest_checkpoint, tell_cover
from node.cli.auditor.query import (
    About,
    AuditKeys,
    Config,
    Decided,
    First,
    Folder,
    Last,
    Permit,
    PermitFile,
    Project,
    Since,
    Until,
    Unverified,
    Wanted,
    What,
    Who,
    WitnessFile,
    day,
    find_log,
    permits_of,
)
from node.cli.options import NODE_FILE, Json

Proof = Annotated[bool, typer.Option("--proof", help="say behind each record which checkpoint covers it")]
_FOLLOW_S = 0.5


@dataclass
class _Shown:
    """How many records were shown, and the newest of them."""

    number: int = 0
    newest: int = 0


def _wanted(
    about: About,
    permit: Permit,
    project: Project,
    permit_file: PermitFile,
    config: Config,
    who: Who,
    action: What,
    verdict: Decided,
    since: Since,
    until: Until,
) -> Wanted:
    """What the filters of `show` and `export` say together."""
    permits = permits_of(project, permit_file or [], config) if project else None
    days = day(since, date.min), day(until, date.max)
    return Wanted(about, permit, permits, who, action or (), verdict or (), *days)


def _line(as_json: bool, *, proof: bool) -> Callable[[LogLine], str]:
    """How a record is written on a line of its own."""
    return forms.as_json if as_json else lambda line: forms.in_words(line, proof=proof)


def show_log(
    folder: Folder = None,
    config: Config = NODE_FILE,
    key: AuditKeys = None,
    witness: WitnessFile = None,
    about: About = None,
    permit: Permit = None,
    project: Project = None,
    permit_file: PermitFile = None,
    who: Who = None,
    action: What = None,
    verdict: Decided = None,
    since: Since = None,
    until: Until = None,
    first: First = 1,
    last: Last = None,
    proof: Proof = False,
    unverified: Unverified = False,
    as_json: Json = False,
) -> None:
    """Show records in words, one a line: who did what to what, under which permit, with which verdict and why.

    The whole log is checked meanwhile; at the end it is said how far a signed checkpoint covers what was shown. Exit
    code 4, after the records, where the log does not verify. With --json one object a line.
    """
    wanted = _wanted(about, permit, project, permit_file, config, who, action, verdict, since, until)
    log = find_log(folder, config, key, witness, unverified)
    _show(log, wanted, _line(as_json, proof=proof), first, last)


def search(
    text: Annotated[str, typer.Argument(help="what a record's object, actor, action or sentence holds; any case")],
    folder: Folder = None,
    config: Config = NODE_FILE,
    key: AuditKeys = None,
    witness: WitnessFile = None,
    since: Since = None,
    until: Until = None,
    proof: Proof = False,
    unverified: Unverified = False,
    as_json: Json = False,
) -> None:
    """Show every record that holds a text: a run, an image's digest, a root id, a word of the sentence."""
    wanted = Wanted(since=day(since, date.min), until=day(until, date.max), text=text)
    log = find_log(folder, config, key, witness, unverified)
    _show(log, wanted, _line(as_json, proof=proof))


def tail(
    folder: Folder = None,
    config: Config = NODE_FILE,
    key: AuditKeys = None,
    witness: WitnessFile = None,
    newest: Annotated[int, typer.Option("--newest", help="so many of the newest records", min=1)] = 20,
    follow: Annotated[bool, typer.Option("--follow", help="go on with every new record, until interrupted")] = False,
    proof: Proof = False,
    unverified: Unverified = False,
    as_json: Json = False,
) -> None:
    """Show the newest records. What --follow adds is read and not checked: no checkpoint covers it yet."""
    log = find_log(folder, config, key, witness, unverified)
    kept: deque[LogLine] = deque(maxlen=newest)
    end = log.last_record()
    report = log.read(kept.append, first=max(1, end - newest + 1))
    written = _line(as_json, proof=proof)
    for line in kept:
        _print(written(line))
    sys.stdout.flush()
    shown = kept[-1].record.sequence if kept else 0
    tell_cover(report, shown)
    growing = Log(log.folder, None, None, None)
    while follow:
        time.sleep(_FOLLOW_S)
        fresh: list[LogLine] = []
        growing.read(fresh.append, first=shown + 1)
        for line in fresh:
            _print(written(line))
            shown = line.record.sequence
        sys.stdout.flush()


def export(
    folder: Folder = None,
    form: Annotated[
        forms.Form, typer.Option("--form", help="JSON lines, CSV (RFC 4180) or syslog lines (RFC 5424)")
    ] = forms.Form.JSONL,
    config: Config = NODE_FILE,
    key: AuditKeys = None,
    witness: WitnessFile = None,
    about: About = None,
    permit: Permit = None,
    project: Project = None,
    permit_file: PermitFile = None,
    who: Who = None,
    action: What = None,
    verdict: Decided = None,
    since: Since = None,
    until: Until = None,
    first: First = 1,
    last: Last = None,
    unverified: Unverified = False,
) -> None:
    """Write records on standard output for another program. Exit code 4, after them, where the log does not verify."""
    wanted = _wanted(about, permit, project, permit_file, config, who, action, verdict, since, until)
    log = find_log(folder, config, key, witness, unverified)
    if head := forms.header(form):
        _print(head)
    _show(log, wanted, forms.printer(form, _site(log)), first, last)


def _show(log: Log, wanted: Wanted, written: Callable[[LogLine], str], first: int = 1, last: int | None = None) -> None:
    shown = _Shown()

    def take(line: LogLine) -> None:
        if wanted.fits(line.record):
            _print(written(line))
            shown.number, shown.newest = shown.number + 1, line.record.sequence

    report = log.read(take, first=first, last=last)
    if not shown.number and wanted.complete():  # what a beginning stands for is known once the log was read
        report = log.read(take, first=first, last=last)
    sys.stdout.flush()
    if not shown.number:
        wanted.tell_nothing()
    tell_cover(report, shown.newest)


def _site(log: Log) -> str:
    """Whose log it is, as its newest checkpoint says."""
    newest = newest_checkpoint(log.folder)
    try:
        return "" if newest is None else decode_checkpoint(newest).site
    except Malformed:  # the check finds it
        return ""


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
