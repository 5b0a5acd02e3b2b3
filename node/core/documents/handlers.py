"""Permits and other signed documents on the staff's sockets."""

from __future__ import annotations

from functools import partial

from mediator.errors import Code, Denied, Reason
from node.core.core import CoreProcess
from node.core.documents.documents import outcome
from node.ipc import documents as words
from node.ipc.caller import Caller
from node.ipc.messages import Empty, SignedText
from node.ipc.verb import Handlers

HANDLERS = Handlers[CoreProcess]()


@HANDLERS.answers(words.PERMITS)
def listed(process: CoreProcess, _caller: Caller, _request: Empty) -> tuple[words.PermitLine, ...]:
    core = process.core
    with core.store.read() as snapshot:
        known, rows = core.revocations(snapshot), snapshot.permits()
        accepted = {row.sha256: snapshot.acceptance(row.permit, row.permit_version) for row in rows}
    revoked = frozenset() if known is None else known.permits
    return tuple(
        words.PermitLine(
            permit=row.permit,
            permit_version=row.permit_version,
            project=row.project,
            not_before=row.not_before,
            expires=row.expires,
            accepted=accepted[row.sha256] is not None,
            revoked=row.permit in revoked,
        )
        for row in rows
    )


@HANDLERS.answers(words.PERMIT_TEXT)
def text(process: CoreProcess, _caller: Caller, request: words.PermitId) -> SignedText:
    with process.core.store.read() as snapshot:
        row = snapshot.permit(request.permit, request.permit_version)
    if row is None:
        raise Denied(Reason(Code.PERMIT_MISSING, "the node does not hold this permit"))
    return SignedText(row.text)


@HANDLERS.answers(words.PERMIT_ACCEPT)
def accept(process: CoreProcess, caller: Caller, request: SignedText) -> words.DocumentOutcome:
    return take_in(process, caller, request)


@HANDLERS.answers(words.DOCUMENTS_IMPORT)
def take_in(process: CoreProcess, caller: Caller, request: SignedText) -> words.DocumentOutcome:
    return outcome(partial(process.documents.receive, by=caller.role, actor=caller.actor), request.text)
