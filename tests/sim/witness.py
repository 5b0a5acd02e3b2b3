"""A hub's witness on a real `hub.db`, and a core that is carried to it as its link would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from sqlalchemy import select

from federation.hub.database import Database
from federation.hub.registry import Peer
from federation.hub.tables import HubCheckpointRow, SiteRow
from federation.hub.witness import Witness
from mediator.errors import IntegrityBroken
from mediator.signatures import KeyRing, SigningKey, VerifyKey
from node.core.audit.witness import WitnessDesk


class HubWitness:
    """The hub's side for one site."""

    def __init__(self, folder: Path, site: str, audit: VerifyKey, key: SigningKey, now: datetime) -> None:
        self.database = Database(folder / "hub.db")
        self.database.upgrade()
        self.witness = Witness(self.database, lambda: now)
        self.site, self.key = site, key
        self._peer = Peer(site, b"", "", KeyRing(), KeyRing([audit]))
        with self.database.write() as session:
            row = SiteRow(site=site, state="active", enrolled="", flower_key="", release_key="", audit_key=audit.text)
            session.add(row)

    def refused(self) -> bool:
        with self.database.read() as session:
            return session.get_one(SiteRow, self.site).checkpoint_refused is not None

    def forget_all_but_the_first(self) -> None:
        """As after a backup of the hub was restored."""
        with self.database.write() as session:
            for row in session.scalars(select(HubCheckpointRow).order_by(HubCheckpointRow.size)).all()[1:]:
                session.delete(row)

    def visit(self, core: WitnessDesk, *, lose: bool = False) -> int:
        """A link connects and shows what there is; the number of checkpoints the hub signed. `lose`: its answers."""
        signed = 0
        core.holds(self.witness.held(self.site), False)
        for shown in core.to_show(_once()):
            try:
                line = self.witness.sign(self._peer, shown.text, shown.proof, self.key)
            except IntegrityBroken:
                core.holds(self.witness.held(self.site), True)
                continue
            if not lose:
                core.witnessed(line)
            signed += 1
        return signed

    def lines(self) -> bytes:
        return b"".join(self.witness.export(self.site))


def _once() -> Callable[[], bool]:
    looks: Iterator[bool] = iter((True,))
    return lambda: next(looks, False)
