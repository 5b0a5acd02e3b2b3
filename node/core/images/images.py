"""Images at a hospital: added with their facts, approved by a named person, withdrawn.

Core has no engine: the facts come from hospital IT, who holds one. What starts a program in an image stands in its
configuration, whose hash is the image's id, and that is checked again here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from containers.warm.pool import Sandboxes
from mediator.audit import Action, Verdict
from mediator.errors import Code, Denied, Reason, UsageFault
from mediator.grammar import check_digest
from mediator.images import ImageFacts, printable, read_facts, unfit
from node.core.context import Core, event
from node.core.records import ImageFactsRow, ImageRow
from node.core.store.reads import Reads
from node.ipc.caller import Caller, check_person

_MAX_NOTE = 200


@dataclass(frozen=True)
class KnownImage:
    """An image as the hospital knows it: its facts, its approval, or both."""

    row: ImageFactsRow | None
    approval: ImageRow | None

    @property
    def image(self) -> str:
        known = self.row or self.approval
        assert known is not None
        return known.image

    @property
    def approved(self) -> bool:
        return self.approval is not None and self.approval.withdrawn is None


def standings(snapshot: Reads) -> tuple[KnownImage, ...]:
    """Every image that was added or approved, in that order."""
    approvals = {row.image: row for row in snapshot.images()}
    added = [KnownImage(row, approvals.pop(row.image, None)) for row in snapshot.images_added()]
    return (*(KnownImage(None, row) for row in approvals.values()), *added)


def add(core: Core, text: str, actor: str) -> tuple[str, bool]:
    """Keep an image's facts; its id, and whether they were new. Raises `Malformed` for facts that contradict
    themselves."""
    facts = read_facts(text)
    happened = event(Action.IMAGE_ADD, facts.image, Verdict.DONE, actor=actor)
    with core.store.transaction(core.clock()) as tx:
        return facts.image, tx.add_image(facts.image, facts.manifest, facts.lineage, text, event=happened)


def known(snapshot: Reads, digest: str) -> KnownImage:
    """The image of this id or manifest digest. Raises `UsageFault` for a tag, `Denied` for what was never added."""
    _check_digest(digest)
    row = snapshot.image_facts(digest)
    approvals = {each.image: each for each in snapshot.images()}
    approval = approvals.get(digest if row is None else row.image)
    if row is None and approval is None:
        raise _unknown()
    return KnownImage(row, approval)


def facts_of(standing: KnownImage) -> ImageFacts:
    """Raises `Denied` where nothing is known of what is in it."""
    if standing.row is None:
        raise _unknown()
    return read_facts(standing.row.text)


def earlier(snapshot: Reads, image: KnownImage) -> KnownImage | None:
    """What an image is to be held against: the last approved of its lineage, or else the last approved of all."""
    others = [each for each in standings(snapshot) if each.approved and each.row and each.image != image.image]
    lineage = image.row.lineage if image.row else ""
    same = [each for each in others if lineage and each.row and each.row.lineage == lineage]
    return max(same or others, key=_when, default=None)


def _when(image: KnownImage) -> datetime:
    assert image.approval is not None
    return image.approval.approved


def approve(core: Core, digest: str, by: str, note: str, *, caller: Caller, architecture: str) -> None:
    """Let an image run here, under permits that name it too.

    1. Somebody is named for it.
    2. What is in it is known.
    3. It is fit (`mediator.images.unfit`).

    A refusal by (2) or (3) is written down. Approving once more changes nothing.
    """
    actor = _named(caller, by)  # (1)
    _check_digest(digest)
    try:
        with core.store.read() as snapshot:
            facts = facts_of(known(snapshot, digest))  # (2)
        if reasons := unfit(facts, architecture):  # (3)
            raise Denied(reasons)
    except Denied as error:
        code = error.reasons[0].code
        refused = event(Action.IMAGE_APPROVE, digest, Verdict.REFUSED, actor=actor, code=code)
        core.refusals.record(core.store, core.clock(), f"{caller.role}/image", refused)
        raise
    approved = event(Action.IMAGE_APPROVE, facts.image, Verdict.DONE, actor=actor)
    with core.store.transaction(core.clock()) as tx:
        tx.approve_image(facts.image, printable(note, _MAX_NOTE), by, event=approved)


def withdraw(core: Core, sandboxes: Sandboxes, digest: str, by: str, *, caller: Caller) -> int:
    """Take an approval back: containers of the image are ended, and gate 1 refuses from now on; how many.

    Where that cannot be written down (`NotNow`), they have ended all the same, and the approval still stands.
    """
    actor = _named(caller, by)
    with core.store.read() as snapshot:
        standing = known(snapshot, digest)
    digests = {standing.image, *([standing.row.manifest] if standing.row and standing.row.manifest else [])}
    gone = event(Action.IMAGE_WITHDRAW, standing.image, Verdict.DONE, actor=actor)
    stopping = sandboxes.begin_stop(Code.IMAGE_NOT_APPROVED, lambda key: key.image in digests)
    try:
        with core.store.transaction(core.clock()) as tx:
            tx.withdraw_image(standing.image, by, event=gone)
    finally:
        stopping.wait()
    return stopping.count + sandboxes.stop(Code.IMAGE_NOT_APPROVED, lambda key: key.image in digests)


def _named(caller: Caller, by: str) -> str:
    """Who did it, as the audit log names them. A name that was typed is a note beside the approval: no record has it
    but where its owner signed."""
    check_person(by)
    if caller.known_by != "socket" and by != caller.person:
        raise UsageFault("--by names another person than the one who is known here")
    return caller.actor


def _check_digest(text: str) -> None:
    try:
        check_digest(text, "an image")
    except ValueError as error:
        raise UsageFault(str(error), hint="a tag names whatever was pushed last; name a digest") from error


def _unknown() -> Denied:
    return Denied(
        Reason(Code.IMAGE_NOT_APPROVED, "nothing is known of what is in this image"),
        hint="add it first: cloister node image add FILE",
    )
