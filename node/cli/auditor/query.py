"""Which records of a log are asked for, and where the log lies."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer

from mediator.audit import Action, AuditRecord, Verdict
from mediator.audit_words import LogSubject, belongs, person_of, role_of, sentence
from mediator.errors import UsageFault
from mediator.types import DataPermit
from node.cli.auditor.log_folder import Log, is_there, read_keys
from node.cli.documents import unverified
from node.cli.files import read_text
from node.cli.id_prefix import complete
from node.cli.output import say

Folder = Annotated[
    Path | None,
    typer.Argument(metavar="[DIR]", help="the log's folder or a copy; without it, that of this machine's node"),
]
Config = Annotated[
    Path, typer.Option("--config", envvar="CLOISTER_NODE_CONFIG", help="the node's TOML file, where no DIR is given")
]
AuditKeys = Annotated[
    Path | None,
    typer.Option("--key", help="the node's audit-keys.txt; without it, the one beside the log's folder"),
]
WitnessFile = Annotated[
    Path | None,
    typer.Option("--witness", help="checkpoints the hub co-signed; without it, the node's own file where it is there"),
]
Unverified = Annotated[
    bool, typer.Option("--unverified", help="only read: check no signature, and only the segments that are asked for")
]
About = Annotated[
    LogSubject | None,
    typer.Option("--about", help="what left, what was deleted, permits and what they ended, refusals, acts of people"),
]
Permit = Annotated[str | None, typer.Option("--permit", help="records under this permit: its name, or NAME@VERSION")]
Project = Annotated[
    str | None,
    typer.Option("--project", help="records under a project's permits, as the running node or --permit-file has them"),
]
PermitFile = Annotated[
    list[Path] | None, typer.Option("--permit-file", help="a signed permit that says whose project it is of (repeat)")
]
Who = Annotated[
    str | None,
    typer.Option("--who", help="records of a person (a.silva), a role (it_admin), or a process of the node (core)"),
]
What = Annotated[
    list[Action] | None,
    typer.Option("--action", metavar="ACTION", help="records of an action (repeat); what is none lists them all"),
]
Decided = Annotated[list[Verdict] | None, typer.Option("--verdict", help="records with this verdict (repeat)")]
Since = Annotated[str | None, typer.Option("--since", help="from this day on, UTC: YYYY-MM-DD")]
Until = Annotated[str | None, typer.Option("--until", help="up to this day and with it, UTC: YYYY-MM-DD")]
First = Annotated[int, typer.Option("--first", help="from the record of this number on", min=1)]
Last = Annotated[int | None, typer.Option("--last", help="up to the record of this number", min=1)]

# so many of what a log knows are listed where nothing was found
_SHOWN = 20
_BESIDE = ("witness/witness.jsonl", "witness.jsonl")


@dataclass
class Wanted:
    """What is asked of a record. `known` collects permits and people as they pass, for whoever found nothing."""

    about: LogSubject | None = None
    permit: str | None = None
    permits: frozenset[str] | None = None
    who: str | None = None
    actions: Collection[Action] = ()
    verdicts: Collection[Verdict] = ()
    since: date = date.min
    until: date = date.max
    text: str = ""
    known: dict[str, set[str]] = field(default_factory=lambda: {"permit": set(), "who": set()})

    def fits(self, record: AuditRecord) -> bool:
        self._note(record)
        name = record.permit.partition("@")[0]
        return (
            (self.about is None or belongs(record, self.about))
            and (self.permit is None or self.permit in (record.permit, name))
            and (self.permits is None or record.permit in self.permits)
            and (self.who is None or self.who in (record.actor, person_of(record.actor), role_of(record.actor)))
            and (not self.actions or record.action in self.actions)
            and (not self.verdicts or record.verdict in self.verdicts)
            and self.since <= record.time.astimezone(UTC).date() <= self.until
            and self._says(record)
        )

    def _says(self, record: AuditRecord) -> bool:
        if not self.text:
            return True
        said = f"{record.object} {record.actor} {record.action} {sentence(record)}"
        return self.text.casefold() in said.casefold()

    def _note(self, record: AuditRecord) -> None:
        if self.permit is not None and record.permit:
            self.known["permit"].add(record.permit)
        if self.who is not None:
            self.known["who"].add(person_of(record.actor) or record.actor)

    def complete(self) -> bool:
        """Where a permit or a person was named by a beginning: the one of the log that it is. Whether there was one.

        Raises `UsageFault` where it may be several.
        """
        before = self.permit, self.who
        permits = {*self.known["permit"], *(each.partition("@")[0] for each in self.known["permit"])}
        if self.permit is not None:
            # several versions of one permit are the permit, unless a version was begun
            names = {each for each in permits if ("@" in each) == ("@" in self.permit)}
            self.permit = complete(self.permit, names, "permit")
        if self.who is not None:
            self.who = complete(self.who, self.known["who"], "person")
        return before != (self.permit, self.who)

    def tell_nothing(self) -> None:
        """Say that no record fitted, and what the log knows of what was named."""
        say("no record fits")
        for what, asked in (("permit", self.permit), ("who", self.who)):
            known = sorted(self.known[what])
            if asked is not None and not any(asked in (each, each.partition("@")[0]) for each in known):
                more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
                say(f"hint: --{what} {asked}: this log knows {', '.join(known[:_SHOWN]) or 'none'}{more}")


def find_log(folder: Path | None, config: Path, key: Path | None, witness: Path | None, unverified_: bool) -> Log:
    """The log of a folder, or of this machine's node, with the keys and the witness's lines that lie beside it."""
    if folder is None:
        from node.cli.admin import reach

        paths = reach(config).paths
        folder, beside, lines = paths.audit, paths.audit_keys, [paths.witness_file]
    else:
        state = folder.absolute().parent
        beside, lines = state / "audit-keys.txt", [state / name for name in _BESIDE]
    if unverified_:
        return Log(folder, None, None, None)
    if key is None and not is_there(beside):
        raise UsageFault(
            "there is no audit-keys.txt beside the log", hint="name it: --key FILE; or check nothing: --unverified"
        )
    audit_keys, witness_keys = read_keys(key or beside)
    if witness is None and witness_keys:
        witness = next((each for each in lines if is_there(each)), None)
    return Log(folder, audit_keys, witness, witness_keys)


def permits_of(project: str, files: list[Path], config: Path) -> frozenset[str]:
    """`name@version` of a project's permits: of signed files, or as the running node holds them."""
    if files:
        given = [unverified(DataPermit, read_text(file).strip()) for file in files]
        held = [(each.project, f"{each.permit}@{each.permit_version}") for each in given]
    else:
        from node.cli.admin import client_for, reach
        from node.ipc.documents import PERMITS
        from node.ipc.messages import Empty

        with client_for(reach(config), PERMITS) as client:
            held = [(row.project, f"{row.permit}@{row.permit_version}") for row in client.call(PERMITS, Empty())]
    project = complete(project, (of for of, _ in held), "project")
    found = frozenset(permit for of, permit in held if of == project)
    if not found:
        known = ", ".join(sorted({of for of, _ in held})[:_SHOWN]) or "none"
        raise UsageFault(f"there is no permit of the project {project}", hint=f"projects there are: {known}")
    return found


def day(text: str | None, otherwise: date) -> date:
    """A day as people write it in a filter."""
    if text is None:
        return otherwise
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise UsageFault(f"{text} is no day", hint="a day is YYYY-MM-DD, for example 2026-11-27") from None
