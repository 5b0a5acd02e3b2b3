"""What fails while everything around it answers: tried again a few times, then set aside, and nothing waits behind it.

The count is kept here, by the link's word or core's own, so that a restart of either forgets nothing. Setting aside is
written down first. A release that is set aside goes out as a refusal, `internal`: the hub has an answer and its round
goes on; so does a refusal that cannot go out either, as nothing.
"""

from __future__ import annotations

import logging
import re

from federation.client.ports import Retry
from mediator.audit import Action, Verdict
from mediator.errors import Code, HubCode
from mediator.jobs import JobState, JobStep
from node.core.context import Core, event, permit_name
from node.core.records import ANSWERS, RELEASE, AuditEvent, InstructionRow
from node.core.store.writes import Tx

log = logging.getLogger(__name__)

# five tries over half a minute: what a restart next door cures is cured by then
MOST_TRIES = 5
_FIRST_PAUSE_S = 2.0
_ACTIONS = {"message": Action.INSTRUCTION_RECEIVE, "document": Action.DOCUMENT_IMPORT}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WORD = re.compile(r"[a-z][a-z_]{0,63}")
_ASIDE = Retry(times=MOST_TRIES, again_s=0.0, set_aside=True)


def failed(core: Core, kind: str, subject: str, reason: str, *, final: bool = False) -> Retry:
    """Count a failure of `subject`, the SHA-256 of a message or a document, or the id of the instruction that a release
    or a refusal answers. With `final` there is nothing to try again. What nobody knows is not tried again either."""
    reason = reason if _WORD.fullmatch(reason) else "internal"
    with core.store.transaction(core.clock()) as tx:
        instruction = tx.instruction(subject) if kind in ANSWERS else None
        if kind in ANSWERS:
            if instruction is None or instruction.state == "open" or (kind == RELEASE) != _is_release(instruction):
                return _ASIDE  # it has become something else meanwhile
        elif kind not in _ACTIONS or not _SHA256.fullmatch(subject):
            return _ASIDE
        before = tx.failure(kind, subject)
        if before is not None and before.set_aside is not None:
            return _ASIDE
        times = 1 + (0 if before is None else before.times)
        aside = final or times >= MOST_TRIES
        told = _event(core, tx, kind, subject, instruction) if aside else None
        tx.count_failure(kind, subject, reason, set_aside=aside, event=told)
        if aside and instruction is not None and kind == RELEASE:
            _refuse_instead(tx, instruction)
    if aside:
        log.error("%s %s is set aside (%s)", kind, subject, reason)
    return Retry(times=times, again_s=_FIRST_PAUSE_S * 2.0 ** (times - 1), set_aside=aside)


def _is_release(instruction: InstructionRow) -> bool:
    return instruction.state == "released"


def _event(core: Core, tx: Tx, kind: str, subject: str, instruction: InstructionRow | None) -> AuditEvent | None:
    if instruction is not None:
        permit = permit_name(instruction.permit, instruction.permit_version)
        return event(Action.DELIVER, subject, Verdict.FAILED, permit=permit, code=Code.SET_ASIDE)
    # strangers' to send: of a day's the first are written down one by one, and of the rest the number
    if not core.refusals.keep(tx, f"link/{kind}"):
        return None
    return event(_ACTIONS[kind], f"{kind}/{subject}", Verdict.FAILED, code=Code.SET_ASIDE)


def _refuse_instead(tx: Tx, instruction: InstructionRow) -> None:
    permit = permit_name(instruction.permit, instruction.permit_version)
    for job in tx.jobs_of(instruction.instruction):
        if job.state is JobState.RELEASED:
            ended = event(Action.JOB_END, instruction.instruction, Verdict.FAILED, permit=permit, code=Code.SET_ASIDE)
            tx.advance(job.job, JobStep.FAIL, event=ended, code=Code.SET_ASIDE, hub_code=HubCode.INTERNAL)
