"""Signed documents on their way in: permits, acceptances, run orders, revocation lists.

Each is opened with the ring that may sign it, written down, and kept; a document that is refused is written down too.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import Any

from mediator.audit import Action, Verdict
from mediator.errors import CloisterError, Code, Denied, Malformed, Reason, UnsupportedVersion
from mediator.permit import (
    compile_permit,
    open_acceptance,
    open_permit,
    open_revocations,
    open_run_order,
    unenforceable,
)
from mediator.signatures import Signed, peek_kind
from mediator.types import Acceptance, DataPermit, RevocationList, RunOrder
from node.core.context import CORE, Core, event, permit_name
from node.core.store.writes import Tx
from node.ipc.documents import DocumentOutcome

log = logging.getLogger(__name__)


class Documents:
    """Takes documents in. `on_change` is called after every document that was new, and for a revocation list before
    it is kept, too."""

    def __init__(self, core: Core, on_change: Callable[[], None]) -> None:
        self._core = core
        self._on_change = on_change

    def receive(self, text: str, *, actor: str = CORE, given_now: bool = False) -> bool:
        """Keep a document; false when it was held already. What a revocation list ends has ended before it is kept.

        Raises `Denied` or `Malformed`, recorded either way. An error that nobody foresaw ends this document, recorded
        too (`internal`), and never the stream of those that come after it.
        """
        try:
            signed, action = self._open(text)
            if isinstance(signed.document, RevocationList) and self._core.hear(signed):
                self._on_change()
            with self._core.store.transaction(self._core.clock()) as tx:
                if not given_now:
                    _check_brought(tx, signed)
                happened = event(action, about(signed), Verdict.DONE, permit=_permit(signed), actor=actor)
                new = tx.add_document(signed, event=happened)
        except (Denied, Malformed) as error:
            self._record_refusal(text, code_of(error), actor)
            raise
        except CloisterError:
            raise
        except Exception as error:
            log.exception("a document met an error nobody foresaw")
            self._record_refusal(text, Code.INTERNAL, actor)
            raise Denied(Reason(Code.INTERNAL)) from error
        if new:
            self._on_change()
        return new

    def accept(self, text: str, *, actor: str) -> bool:
        """Keep a steward's acceptance, once it compiles with its permit to something this node can enforce."""
        try:
            signed = open_acceptance(text, self._core.trust.stewards)
            accepted = signed.document
            with self._core.store.read() as snapshot:
                row = snapshot.permit(accepted.permit, accepted.permit_version)
            if row is None:
                raise Denied(Reason(Code.PERMIT_MISSING, "the node does not hold this permit"))
            if accepted.site != self._core.site:
                raise Denied(Reason(Code.SITE_NOT_NAMED, "the acceptance is for another site"))
            compile_permit(open_permit(row.text, self._core.trust.committee), signed)
        except (Denied, Malformed) as error:
            self._record_refusal(text, code_of(error), actor)
            raise
        return self.receive(text, actor=actor, given_now=True) or self._accept_again(signed, actor)

    def _accept_again(self, signed: Signed[Acceptance], actor: str) -> bool:
        """The same yes, said anew after the log was set back; a text that somebody kept cannot say it."""
        again = event(Action.PERMIT_ACCEPT, about(signed), Verdict.DONE, permit=_permit(signed), actor=actor)
        with self._core.store.transaction(self._core.clock()) as tx:
            new = tx.accept_again(signed.sha256, event=again)
        if new:
            self._on_change()
        return new

    def _open(self, text: str) -> tuple[Signed[Any], Action]:
        trust, kind = self._core.trust, peek_kind(text)
        if kind == DataPermit.KIND:
            permit = open_permit(text, trust.committee)
            if reasons := unenforceable(permit.document):
                raise Denied(reasons)
            return permit, Action.DOCUMENT_IMPORT
        if kind == RevocationList.KIND:
            return open_revocations(text, trust.committee), Action.DOCUMENT_IMPORT
        if kind == Acceptance.KIND:
            return open_acceptance(text, trust.stewards), Action.PERMIT_ACCEPT
        if kind == RunOrder.KIND:
            with self._core.store.read() as snapshot:
                held = [open_permit(row.text, trust.committee).document for row in snapshot.permits()]
            return open_run_order(text, held), Action.DOCUMENT_IMPORT
        raise Malformed("a document of a kind this node does not take")

    def _record_refusal(self, text: str, code: Code, actor: str) -> None:
        # the text is a stranger's: only its hash is written down
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        refused = event(Action.DOCUMENT_IMPORT, f"document/{digest}", Verdict.REFUSED, code=code, actor=actor)
        with self._core.store.transaction(self._core.clock()) as tx:
            tx.record(event=refused)


def _check_brought(tx: Tx, signed: Signed[Any]) -> None:
    """After a log was set back an acceptance is a person's to give here and now: whoever brings one from elsewhere may
    bring one from before, which says no more when it was signed."""
    if isinstance(signed.document, Acceptance) and tx.epoch_number() > 0:
        raise Denied(Reason(Code.EPOCH_OVER, "since the log was set back, a permit is accepted here and now"))


def about(signed: Signed[Any]) -> str:
    """A document as audit records name it."""
    document = signed.document
    if isinstance(document, RunOrder):
        return f"run-order/{document.run}"
    if isinstance(document, RevocationList):
        return f"revocation-list/{document.number}"
    if isinstance(document, Acceptance):
        return f"acceptance/{signed.sha256}"
    return f"permit/{signed.sha256}"


def outcome(take: Callable[[str], bool], text: str) -> DocumentOutcome:
    """What became of a document, as an answer rather than an error: a refused document is nobody's fault here."""
    try:
        return DocumentOutcome("accepted" if take(text) else "known")
    except (Denied, Malformed) as error:
        return DocumentOutcome("refused", code_of(error))


def code_of(error: Denied | Malformed) -> Code:
    """The first reason's code; what could not even be read has one of two."""
    if isinstance(error, Denied):
        return error.reasons[0].code
    return Code.UNSUPPORTED_VERSION if isinstance(error, UnsupportedVersion) else Code.MALFORMED


def _permit(signed: Signed[Any]) -> str:
    document = signed.document
    if isinstance(document, RevocationList):
        return ""
    return permit_name(document.permit, document.permit_version)
