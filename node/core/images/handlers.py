"""The staff's verbs about images."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

from mediator.errors import UsageFault
from mediator.images import unfit
from node.core.core import CoreProcess
from node.core.images import images
from node.core.images.images import KnownImage
from node.ipc import images as ipc
from node.ipc.channel import Handler, Verb
from node.ipc.messages import Empty

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    """This machine's architecture as images name it (Go's GOARCH)."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def handlers(process: CoreProcess, role: str) -> Mapping[Verb[Any, Any], Handler]:
    """The verbs of `node.ipc.images`, for one role: audit records name it, and the person who gave their name."""
    core = process.core

    def listed(_request: Empty) -> ipc.Images:
        with core.store.read() as snapshot:
            return ipc.Images(items=tuple(_line(each) for each in images.standings(snapshot)))

    def add(request: ipc.AddImage) -> ipc.Added:
        image, new = images.add(core, request.facts, role)
        return ipc.Added(image=image, new=new)

    def show(request: ipc.AskImage) -> ipc.ImageAnswer:
        with core.store.read() as snapshot:
            standing = images.known(snapshot, request.image)
            facts = images.facts_of(standing)
            other = images.earlier(snapshot, standing)
            if request.against is not None:
                other = images.known(snapshot, request.against)
        return ipc.ImageAnswer(
            line=_line(standing),
            facts=_text(standing),
            unfit=tuple(reason.detail for reason in unfit(facts, architecture())),
            against=None if other is None else _text(other),
        )

    def approve(request: ipc.ApproveImage) -> Empty:
        images.approve(core, request.image, request.by, request.note, role=role, architecture=architecture())
        return Empty()

    def withdraw(request: ipc.WithdrawImage) -> ipc.Withdrawn:
        return ipc.Withdrawn(stopped=images.withdraw(core, process.sandboxes, request.image, request.by, role=role))

    return {
        ipc.IMAGES: listed,
        ipc.IMAGE_ADD: add,
        ipc.IMAGE_SHOW: show,
        ipc.IMAGE_APPROVE: approve,
        ipc.IMAGE_WITHDRAW: withdraw,
    }


def _text(standing: KnownImage) -> str:
    if standing.row is None:
        raise UsageFault("nothing is known of what is in the image to compare with", hint="add it first")
    return standing.row.text


def _line(standing: KnownImage) -> ipc.ImageLine:
    row, approval = standing.row, standing.approval
    facts = None if row is None else images.facts_of(standing)
    return ipc.ImageLine(
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
        note="" if approval is None else approval.note,
    )
