"""A log that was set back: how that is noticed, and how a new epoch begins.

Whoever restores a database from a backup restores a node that has forgotten what it served since: the replay table, the
ledger, what was spent. The log shows it. The hub has signed more of it than there is, or the log's own files hold more;
from then on gate 1 refuses, whatever computes is ended, and a person opens a new epoch. Its first record names the
newest checkpoint that was witnessed. Nothing from before it is served: runs have ended, instructions issued before are
refused, and every permit has to be accepted anew.
"""

from __future__ import annotations

import logging

from mediator.audit import Action, Epoch, LogHead, Verdict, decode_witness
from mediator.errors import CloisterError, Code, UsageFault
from mediator.tree import Frontier
from node.core.context import Core, event
from node.core.store.audit_log import AuditLog
from node.core.store.reads import Reads

log = logging.getLogger(__name__)


def look_back(core: Core, audit_log: AuditLog) -> None:
    """Hold the database against the log's own files, when core starts: they may know of more."""
    seen = _last_witnessed(core, audit_log)
    with core.store.read() as snapshot:
        opened = snapshot.epoch()
        follows = opened is not None and seen is not None and opened.epoch.before == seen
        behind = seen is not None and not follows and not contains(snapshot, seen)
        own = _witnessed_head(snapshot)
    if seen is not None and behind:
        note_set_back(core, seen)
    elif audit_log.ahead():
        note_set_back(core, own)


def note_set_back(core: Core, head: LogHead) -> None:
    """Write down that somebody has seen `head` of this log, and that it is not in it. From now on gate 1 refuses.

    Only for a head that this node's own key signed: any other is a witness's word alone.
    """
    seen = event(Action.LOG_SET_BACK, f"witness/{head.epoch}/{head.size}", Verdict.REFUSED, code=Code.LOG_SET_BACK)
    with core.store.transaction(core.clock()) as tx:
        new = tx.note_set_back(head, event=seen)
    if new:
        log.error("the audit log was set back: %d records of it are known, and it does not hold them all", head.size)


def open_epoch(core: Core, audit_log: AuditLog, actor: str, *, restored: bool) -> Epoch:
    """Begin a new epoch. Raises `UsageFault` where nobody (`restored`) and nothing says that the log was set back.

    1. Files that hold what this log does not are set aside whole: they say what happened since the backup.
    2. In one transaction: the record that names what was witnessed last, every run ended, no acceptance in force.
    3. A checkpoint of the new epoch is signed, for the witness.
    """
    with core.store.read() as snapshot:
        noted, opened, own = snapshot.set_back(), snapshot.epoch(), _witnessed_head(snapshot)
        if noted is None and not restored:
            hint = "say so with --restored when the database was restored from a backup all the same"
            raise UsageFault("nothing says that this node's log was set back", hint=hint)
        before = own if noted is None else noted.head
        kept = snapshot.witnessed_size(within=min(before.size, snapshot.audit_size()))
    number = max(before.epoch, 0 if opened is None else opened.epoch.number) + 1
    epoch = Epoch(number, kept, before)
    audit_log.set_aside(number)  # (1)
    with core.store.transaction(core.clock()) as tx:  # (2)
        tx.open_epoch(epoch, event=event(Action.EPOCH_OPEN, epoch.object, Verdict.DONE, actor=actor))
        size = tx.audit_size() + 1
        signed = event(Action.CHECKPOINT, f"checkpoint/{size}", Verdict.DONE)
        tx.add_checkpoint(core.site, core.keys.audit, event=signed)  # (3)
    return epoch


def contains(snapshot: Reads, head: LogHead) -> bool:
    """Whether a log head is of the beginning of this log."""
    return head.size <= snapshot.audit_size() and snapshot.tree_at(head.size).root == head.root


def _witnessed_head(snapshot: Reads) -> LogHead:
    """The newest checkpoint of this very log that a witness signed."""
    row = snapshot.newest_witnessed()
    if row is None:
        return LogHead(0, 0, Frontier().root)
    return decode_witness(row.text.encode("ascii")).checkpoint.head


def _last_witnessed(core: Core, audit_log: AuditLog) -> LogHead | None:
    """What the last line of the witness's file covers, if a witness and this node signed it."""
    line = audit_log.last_witnessed()
    if line is None:
        return None
    own = core.keys.audit
    try:
        seen = decode_witness(line)
        seen.verify(core.trust.witnesses)
        seen.checkpoint.verify({own.key_id: own.verify_key})
    except CloisterError as error:
        log.warning("the last line of the witness's file says nothing: %s", error.message)
        return None
    return seen.checkpoint.head
