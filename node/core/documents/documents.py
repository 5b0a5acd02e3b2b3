"""Signed documents on their way in: permits, acceptances, run orders, revocation lists.

There is one door, whoever hands a document in. `MAY_HAND_IN` says who may bring which kind, and behind it each kind is
asked the same, by the same function: opened with the ring that may sign it, checked, written down, and kept. A document
that is refused is written down too, so many a day (`node.core.refusals`).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

from mediator.audit import Action, Verdict
from mediator.errors import CloisterError, Code, Denied, Malformed, Reason, UnsupportedVersion
from mediator.permit import (
    compile_permit,
    open_acceptance,
    open_known_permits,
    open_permit,
    open_revocations,
    open_run_order,
    unenforceable,
)
from mediator.revocations import forks
from mediator.roles import Role
from mediator.signatures import Signed, peek_kind
from mediator.types import Acceptance, DataPermit, RevocationList, RunOrder
from node.core.context import CORE, Core, event, permit_name
from node.core.records import AuditEvent
from node.core.store.writes import Tx
from node.ipc.documents import DocumentOutcome

log = logging.getLogger(__name__)


LINK = "link"
_PUBLISHED = frozenset({DataPermit.KIND, RunOrder.KIND, RevocationList.KIND})
# The kinds of documents that each peer may hand in. A hospital's yes to a permit comes from its own steward, on their
# own socket: a hub has none to bring, and no colleague brings it for them.
MAY_HAND_IN: Mapping[str, frozenset[str]] = {
    LINK: _PUBLISHED,
    Role.IT_ADMIN.value: _PUBLISHED,
    Role.DATA_STEWARD.value: _PUBLISHED | {Acceptance.KIND},
}
# A person whom a permit names may sign orders without end, and each is kept whole.
ORDERS_PER_DAY = 200


class Documents:
    """Takes documents in. `on_change` is called after every document that was new, and for a revocation list before
    it is kept, too."""

    def __init__(self, core: Core, on_change: Callable[[], None], orders_per_day: int = ORDERS_PER_DAY) -> None:
        self._core = core
        self._orders_per_day = orders_per_day
        self._on_change = on_change

    def receive(self, text: str, *, by: str = LINK, actor: str = CORE) -> bool:
        """Keep a document that `by` hands in; false when it was held already. What a revocation list ends has ended
        before it is kept.

        Raises `Denied` or `Malformed`, recorded either way. An error that nobody foresaw ends this document, recorded
        too (`internal`), and never the stream of those that come after it.
        """
        try:
            signed, action = self._open(text, by)
            if isinstance(signed.document, RevocationList) and self._core.hear(signed):
                self._on_change()
            code = self._odd(signed)
            with self._core.store.transaction(self._core.clock()) as tx:
                happened = event(action, about(signed), Verdict.DONE, permit=_permit(signed), code=code, actor=actor)
                new = tx.add_document(signed, event=happened) or _accepts_again(tx, signed, happened)
                if new and isinstance(signed.document, RunOrder):
                    self._check_orders(tx, signed.document)
        except (Denied, Malformed) as error:
            self._record_refusal(text, code_of(error), by, actor)
            raise
        except CloisterError:
            raise
        except Exception as error:
            log.exception("a document met an error nobody foresaw")
            self._record_refusal(text, Code.INTERNAL, by, actor)
            raise Denied(Reason(Code.INTERNAL)) from error
        if new:
            self._on_change()
        return new

    def _open(self, text: str, by: str) -> tuple[Signed[Any], Action]:
        kind = peek_kind(text)
        opened_by = {
            DataPermit.KIND: (self._permit, Action.DOCUMENT_IMPORT),
            RevocationList.KIND: (self._revocations, Action.DOCUMENT_IMPORT),
            Acceptance.KIND: (self._acceptance, Action.PERMIT_ACCEPT),
            RunOrder.KIND: (self._order, Action.DOCUMENT_IMPORT),
        }
        if kind not in opened_by:
            raise Malformed("a document of a kind this node does not take")
        if kind not in MAY_HAND_IN.get(by, frozenset()):
            raise Denied(Reason(Code.ROLE_NOT_PERMITTED, "not a document that this peer may hand in"))
        check, action = opened_by[kind]
        return check(text), action

    def _permit(self, text: str) -> Signed[Any]:
        """A permit that this node can hold itself to."""
        permit = open_permit(text, self._core.trust.committee)
        if reasons := unenforceable(permit.document):
            raise Denied(reasons)
        return permit

    def _odd(self, signed: Signed[Any]) -> Code | None:
        """What is to be said of a document that is taken in all the same: what a forking list revokes is revoked."""
        if not isinstance(signed.document, RevocationList):
            return None
        with self._core.store.read() as snapshot:
            row = snapshot.newest_revocation_list()
        if not forks(None if row is None else row.revocations, signed):
            return None
        log.error("revocation list %d forks: it was made from another list than ours", signed.document.number)
        return Code.REVOCATION_LIST_FORKED

    def _revocations(self, text: str) -> Signed[Any]:
        return open_revocations(text, self._core.trust.committee)

    def _acceptance(self, text: str) -> Signed[Any]:
        """A steward's acceptance that compiles with its permit to something this node can enforce."""
        signed = open_acceptance(text, self._core.trust.stewards)
        accepted = signed.document
        with self._core.store.read() as snapshot:
            row = snapshot.permit(accepted.permit, accepted.permit_version)
        if row is None:
            raise Denied(Reason(Code.PERMIT_MISSING, "the node does not hold this permit"))
        if accepted.site != self._core.site:
            raise Denied(Reason(Code.SITE_NOT_NAMED, "the acceptance is for another site"))
        compile_permit(open_permit(row.text, self._core.trust.committee), signed)
        return signed

    def _order(self, text: str) -> Signed[Any]:
        """A run order under a permit that this node holds."""
        with self._core.store.read() as snapshot:
            held = [row.text for row in snapshot.permits()]
        return open_run_order(text, open_known_permits(held, self._core.trust.committee))

    def _check_orders(self, tx: Tx, order: RunOrder) -> None:
        """Raise `Denied` where too many orders under this permit came in today; the transaction takes it back."""
        midnight = tx.now.replace(hour=0, minute=0, second=0, microsecond=0)
        if tx.run_orders_since(order.permit, midnight) > self._orders_per_day:
            raise Denied(Reason(Code.TOO_MANY, f"{self._orders_per_day} orders under this permit came in today"))

    def _record_refusal(self, text: str, code: Code, by: str, actor: str) -> None:
        # the text is a stranger's: only its hash is written down
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        refused = event(Action.DOCUMENT_IMPORT, f"document/{digest}", Verdict.REFUSED, code=code, actor=actor)
        core = self._core
        core.refusals.record(core.store, core.clock(), f"{by}/document", refused)


def _accepts_again(tx: Tx, signed: Signed[Any], happened: AuditEvent) -> bool:
    """The same yes, said anew after the log was set back: the door takes it from the data steward alone."""
    return isinstance(signed.document, Acceptance) and tx.accept_again(signed.sha256, event=happened)


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
