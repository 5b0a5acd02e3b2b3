"""Images on the staff's sockets."""

from __future__ import annotations

import platform

from mediator.errors import UsageFault
from mediator.images import unfit
from node.core.core import CoreProcess
from node.core.images import images
from node.core.images.images import KnownImage
from node.ipc import images as words
from node.ipc.caller import Caller
from node.ipc.messages import Empty
from node.ipc.verb import Handlers

HANDLERS = Handlers[CoreProcess]()

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    """This machine's architecture as images name it (Go's GOARCH)."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


@HANDLERS.answers(words.IMAGES)
def listed(process: CoreProcess, _caller: Caller, _request: Empty) -> tuple[words.ImageLine, ...]:
    with process.core.store.read() as snapshot:
        return tuple(_line(each) for each in images.standings(snapshot))


@HANDLERS.answers(words.IMAGE_ADD)
def add(process: CoreProcess, caller: Caller, request: words.AddImage) -> words.AddedImage:
    image, new = images.add(process.core, request.facts, caller.actor)
    return words.AddedImage(image, new)


@HANDLERS.answers(words.IMAGE_SHOW)
def show(process: CoreProcess, _caller: Caller, request: words.AskImage) -> words.ImageAnswer:
    with process.core.store.read() as snapshot:
        standing = images.known(snapshot, request.image)
        facts = images.facts_of(standing)
        other = images.earlier(snapshot, standing)
        if request.against is not None:
            other = images.known(snapshot, request.against)
    return words.ImageAnswer(
        line=_line(standing),
        facts=_text(standing),
        unfit=tuple(reason.detail for reason in unfit(facts, architecture())),
        against=None if other is None else _text(other),
    )


@HANDLERS.answers(words.IMAGE_APPROVE)
def approve(process: CoreProcess, caller: Caller, request: words.ApproveImage) -> Empty:
    images.approve(process.core, request.image, request.by, request.note, caller=caller, architecture=architecture())
    return Empty()


@HANDLERS.answers(words.IMAGE_WITHDRAW)
def withdraw(process: CoreProcess, caller: Caller, request: words.WithdrawImage) -> words.WithdrawnImage:
    stopped = images.withdraw(process.core, process.sandboxes, request.image, request.by, caller=caller)
    return words.WithdrawnImage(stopped)


def _text(standing: KnownImage) -> str:
    if standing.row is None:
        raise UsageFault("nothing is known of what is in the image to compare with", hint="add it first")
    return standing.row.text


def _line(standing: KnownImage) -> words.ImageLine:
    row, approval = standing.row, standing.approval
    facts = None if row is None else images.facts_of(standing)
    return words.ImageLine(
        image=standing.image,
        lineage="" if row is None else row.lineage,
        state="approved" if standing.approved else "added" if approval is None else "withdrawn",
        origin="" if facts is None else facts.origin,
        added=None if row is None else row.added,
        size_bytes=None if facts is None else facts.size_bytes,
        packages=None if facts is None else len(facts.packages),
        approved=None if approval is None else approval.approved,
        approved_by=None if approval is None else approval.approved_by,
        withdrawn=None if approval is None else approval.withdrawn,
        withdrawn_by=None if approval is None else approval.withdrawn_by,
        note="" if approval is None else approval.note,
    )
