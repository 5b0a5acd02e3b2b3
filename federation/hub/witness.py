"""The hub as witness of the sites' audit logs: it co-signs what goes on where it saw it last, and keeps every line.

It sees hashes, never a record. What it refuses is how a log that was rewritten, or set back, comes to light.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from federation.hub.database import Database, note, note_refused
from federation.hub.peers import Peer
from federation.hub.tables import HubCheckpointRow, SiteRow
from mediator.audit import (
    Checkpoint,
    WitnessedCheckpoint,
    decode_checkpoint,
    decode_witness,
    encode_checkpoint,
    witness_checkpoint,
)
from mediator.canonical import print_time
from mediator.errors import IntegrityBroken, UsageFault
from mediator.signatures import SigningKey
from mediator.tree import proves

log = logging.getLogger("cloister.hub")

# lines read from the database at a time
_BATCH = 1000


class Witness:
    """Witnessed checkpoints in `hub.db`."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def held(self, site: str) -> str:
        """The line this hub signed last for a site; empty where it has signed none."""
        with self._database.read() as session:
            newest = _newest(session, site)
            return "" if newest is None else newest.witness.decode("utf-8").removesuffix("\n")

    def sign(self, peer: Peer, text: str, proof: Sequence[str], key: SigningKey) -> str:
        """Co-sign a checkpoint of `peer`'s audit log, and remember it.

        1. It is a checkpoint of this site, signed by its audit key.
        2. It goes on where this hub saw that log last, or opens a new epoch (`witness_checkpoint`).

        Raises `Malformed`, or `IntegrityBroken`. The first refusal after a signature is noted: what follows it says
        nothing new, and whoever repeats it fills no table.
        """
        now = self._clock()
        checkpoint = decode_checkpoint(text.encode("utf-8"))
        with self._database.write() as session:
            newest = _newest(session, peer.site)
            previous = None if newest is None else decode_witness(newest.witness).checkpoint
            try:
                if checkpoint.site != peer.site:  # (1)
                    raise IntegrityBroken("a checkpoint of another site")
                checkpoint.verify(peer.audit_keys)  # (1)
                kept = _kept(session, checkpoint, proof)
                witnessed = witness_checkpoint(checkpoint, previous, key, proof=proof, kept=kept)  # (2)
            except IntegrityBroken as error:
                refusal: IntegrityBroken | None = error
                self._note_refusal(session, now, peer.site, checkpoint, error)
            else:
                refusal = None
                _keep(session, now, witnessed, previous)
        if refusal is not None:
            raise refusal
        return encode_checkpoint(witnessed).decode("utf-8").removesuffix("\n")

    def _note_refusal(
        self, session: Session, now: datetime, site: str, checkpoint: Checkpoint, error: IntegrityBroken
    ) -> None:
        row = session.get(SiteRow, site)
        if row is None or row.checkpoint_refused is not None:
            return
        row.checkpoint_refused = print_time(now)
        about = f"epoch/{checkpoint.number}/size/{checkpoint.size}"
        note_refused(self._database, session, now, site, "checkpoint", about, error.code)
        log.error("%s: a checkpoint of its audit log is not witnessed: %s", site, error.message)

    def export(self, site: str) -> Iterator[bytes]:
        """Every line of a site, all epochs, each with its line end. Raises `UsageFault` where there is none."""
        at = (-1, -1)
        with self._database.read() as session:
            if _newest(session, site) is None:
                raise UsageFault(f"this hub has witnessed nothing of {site}", hint="see `cloister hub node list`")
            while True:
                row = HubCheckpointRow
                later = (row.epoch > at[0]) | ((row.epoch == at[0]) & (row.size > at[1]))
                query = select(row).where(row.site == site, later).order_by(row.epoch, row.size).limit(_BATCH)
                rows = session.scalars(query).all()
                if not rows:
                    return
                for each in rows:
                    yield each.witness
                at = (rows[-1].epoch, rows[-1].size)


def _newest(session: Session, site: str) -> HubCheckpointRow | None:
    row = HubCheckpointRow
    query = select(row).where(row.site == site).order_by(row.epoch.desc(), row.size.desc()).limit(1)
    return session.scalar(query)


def _kept(session: Session, checkpoint: Checkpoint, proof: Sequence[str]) -> Checkpoint | None:
    """What this hub signed of as many records as an epoch says it keeps; of several epochs, the one that is proven."""
    if checkpoint.epoch is None or checkpoint.epoch.kept == 0:
        return None
    row = HubCheckpointRow
    query = select(row.witness).where(row.site == checkpoint.site, row.size == checkpoint.epoch.kept)
    found = [decode_witness(line).checkpoint for line in session.scalars(query.order_by(row.epoch.desc()))]
    proven = (one for one in found if proves(one.size, one.root, checkpoint.size, checkpoint.root, proof))
    return next(proven, found[0] if found else None)


def _keep(session: Session, now: datetime, witnessed: WitnessedCheckpoint, previous: Checkpoint | None) -> None:
    checkpoint = witnessed.checkpoint
    site = session.get(SiteRow, checkpoint.site)
    if site is not None:
        site.checkpoint_refused = None
    if previous is not None and previous.head == checkpoint.head:
        return
    if checkpoint.epoch is not None and (previous is None or previous.number < checkpoint.number):
        note(session, now, checkpoint.site, "epoch", checkpoint.epoch.object, "allowed")
        log.warning("%s was set back: epoch %d of its log begins", checkpoint.site, checkpoint.number)
    session.add(
        HubCheckpointRow(
            site=checkpoint.site,
            epoch=checkpoint.number,
            size=checkpoint.size,
            root=checkpoint.root,
            received=print_time(now),
            witness=encode_checkpoint(witnessed),
        )
    )
