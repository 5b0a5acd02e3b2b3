"""`cloister node analysis` and `cloister node airlock`: what the hospital's people do with a local analysis."""

from __future__ import annotations

import hashlib
import json
import typing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from durable.files import replace_file
from mediator.airlock.review import Review, Why
from mediator.disclosure import NearCount, ShownCount
from mediator.errors import IntegrityBroken, UsageFault
from node.cli.admin import client_for, known, load, reach
from node.cli.documents import made
from node.cli.id_prefix import complete
from node.cli.options import Json, Key, NodeConfig, SignWith
from node.cli.output import data, plain, say, show, table
from node.host.disk_errors import cannot_write
from node.host.keys import read_signing_key
from node.ipc import airlock as words
from node.ipc.jobs import RUNS
from node.ipc.messages import Empty, SignedText

if TYPE_CHECKING:
    from node.ipc.channel import Client

analysis = typer.Typer(no_args_is_help=True)
airlock = typer.Typer(no_args_is_help=True)

File = Annotated[str, typer.Argument(help="the file, as the list names it (file-…), or the beginning of its name")]
_REASONS = ", ".join(word for word in typing.get_args(Why) if word != "safe")


@analysis.callback()
def _analyses() -> None:
    """Analyses that run at this hospital alone, without a hub."""


@analysis.command("start")
def start(
    config: NodeConfig,
    run: Annotated[str, typer.Argument(help="the run of a local run order, or its beginning")],
    key: SignWith = None,
) -> None:
    """Let a researcher's local run order run here, once; its files go into the airlock."""
    with client_for(reach(config), words.ANALYSIS_START, key=key) as client:
        run = complete(run, (line.run for line in client.call(RUNS, Empty())), "run", acts=True)
        answer = client.call(words.ANALYSIS_START, words.RunId(run=run))
    say(f"admitted {answer.instruction}; follow it with: cloister node job list")


@airlock.command("list")
def list_files(config: NodeConfig, as_json: Json = False) -> None:
    """Files of analyses, newest first: what the rules found, who has agreed, what waits too long."""
    with client_for(reach(config), words.AIRLOCK_LIST) as client:
        items = client.call(words.AIRLOCK_LIST, Empty())
    columns = ("file", "run", "name", "rules", "state", "agreed", "since", "late", "code")
    rows = (
        (
            item.file,
            item.run,
            item.name,
            item.outcome,
            item.state,
            f"{item.approvals} of {item.needed}",
            item.created.date(),
            item.late,
            item.code or "",
        )
        for item in items
    )
    show(list(items), as_json=as_json, table=table(columns, rows))


@airlock.command("show")
def show_file(config: NodeConfig, file: File, key: SignWith = None, as_json: Json = False) -> None:
    """A file as it would leave, and its disclosure record: which rule was asked, and what it minded."""
    with client_for(reach(config), words.AIRLOCK_SHOW, key=key) as client:
        answer = client.call(words.AIRLOCK_SHOW, words.FileId(file=_whole(client, file)))
    record = json.loads(answer.record)
    if as_json:
        show(_told(answer, record) | {"near": [plain(each) for each in answer.near]}, as_json=True)
        return
    line = answer.line
    say(f"{line.name}: {line.state}, {line.approvals} of {line.needed} persons have agreed")
    found = (
        (each["rule"], each["result"], each["looked_at"], each["minded"], each["limit"]) for each in record["findings"]
    )
    table(("rule", "result", "looked at", "minded", "limit"), found).print()
    if answer.near:
        say("counts that differ little from some that left under this permit, or wait to: is a person in between?")
        columns = ("here", "count", "elsewhere", "count", "differ by", "where", "others as near")
        table(columns, (_beside(pair, record["dataset_version"]) for pair in answer.near)).print()
    for each in answer.reviews:
        say(f"{each.subject}: {each.decision}, {each.why}")
    data.print(answer.content.decode("ascii"), end="")


@airlock.command("review")
def review(
    config: NodeConfig,
    file: File,
    key: Key,
    approve: Annotated[bool | None, typer.Option("--approve/--refuse", help="your decision")] = None,
    reason: Annotated[str | None, typer.Option(help=f"why you refuse: {_REASONS}")] = None,
) -> None:
    """Say yes or no to a file, signed with your key: to exactly the content and the record that `show` prints now."""
    if approve is None or (reason is None) is not approve:
        raise UsageFault("say --approve, or --refuse with --reason", hint=f"reasons: {_REASONS}")
    why = "safe" if reason is None else reason
    if why not in typing.get_args(Why) or (why == "safe") is not approve:
        raise UsageFault("this reason is not one of the list", hint=f"reasons: {_REASONS}")
    loaded = load(config)
    with client_for(loaded, words.AIRLOCK_SHOW, key=known(loaded, key)) as client:
        file = _whole(client, file, acts=True)
        found = client.call(words.AIRLOCK_SHOW, words.FileId(file=file))
        document = made(
            Review,
            site=loaded.site,
            file=file,
            content_sha256=hashlib.sha256(found.content).hexdigest(),
            record_sha256=hashlib.sha256(found.record.encode("utf-8")).hexdigest(),
            decision="approve" if approve else "refuse",
            why=why,
            issued=datetime.now(UTC).replace(microsecond=0),
        )
        text = read_signing_key(key).sign(document)
        answer = client.call(words.AIRLOCK_REVIEW, SignedText(text=text))
    say(f"{file} is {answer.state}")


@airlock.command("release")
def release(
    config: NodeConfig,
    file: File,
    to: Annotated[Path, typer.Option(help="a folder; the file is written into it, with its record and its reviews")],
    key: SignWith = None,
) -> None:
    """Fetch an approved file. Its disclosure record and its signed reviews come with it; the node keeps no copy."""
    with client_for(reach(config), words.AIRLOCK_TAKE, key=key) as client:
        file = _whole(client, file, acts=True)
        found = client.call(words.AIRLOCK_TAKE, words.FileId(file=file))
        if hashlib.sha256(found.content).hexdigest() != found.content_sha256:
            raise IntegrityBroken("the file is not the one that was reviewed")
        written = _write(to, found)
        client.call(words.AIRLOCK_TAKEN, words.FileId(file=file))
    say(f"released {file}: {written}")


def _beside(pair: NearCount, dataset_version: str) -> tuple[object, ...]:
    where = f"{pair.name} of {pair.run}"
    if pair.time is not None:
        where += f", {'left' if pair.left else 'waits since'} {pair.time.date()}"
    where += "" if pair.dataset_version == dataset_version else ", another dataset version"
    where += ", one group" if pair.same_group else ""
    return (
        _group(pair.here), pair.here.count, _group(pair.earlier), pair.earlier.count, pair.difference, where,
        pair.others,
    )  # fmt: skip


def _group(count: ShownCount) -> str:
    added = [f"added up over {', '.join(count.over)}"] if count.over else []
    return " ".join([count.column, *(f"{label}={word}" for label, word in count.key), *added])


def _whole(client: Client, file: str, *, acts: bool = False) -> str:
    return complete(file, (line.file for line in client.call(words.AIRLOCK_LIST, Empty())), "file", acts=acts)


def _write(folder: Path, found: words.ShownFile) -> Path:
    """The file, and beside it what was decided about it; on the disk before the node hears that it arrived."""
    target = folder / found.line.name
    beside = folder / f"{found.line.name}.disclosure.json"
    told = json.dumps(_told(found, json.loads(found.record)) | {"content": None}, indent=2).encode("utf-8")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if target.exists() and target.read_bytes() != found.content:
            raise UsageFault(f"another {target.name} is in {folder}", hint="choose another folder")
        for path, content in ((beside, told), (target, found.content)):
            replace_file(path, content, 0o640, masked=True)
    except OSError as error:
        raise cannot_write(target, error) from error
    return target


def _told(answer: words.ShownFile, record: Any) -> dict[str, Any]:
    return {
        "file": plain(answer.line),
        "content": answer.content.decode("ascii"),
        "content_sha256": answer.content_sha256,
        "record": record,
        "record_sha256": answer.record_sha256,
        "reviews": [plain(each) for each in answer.reviews],
    }
