"""An enrolled site as the hub's door knows it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from federation.hub.tables import SiteRow
from mediator.signatures import KeyRing, VerifyKey


@dataclass(frozen=True)
class Peer:
    """An enrolled site as the ingress knows it. `flower_header` is the one value of `flwr-public-key` it may send."""

    site: str
    flower_key: bytes
    flower_header: str
    release_keys: KeyRing
    audit_keys: KeyRing


def peer_of(row: SiteRow) -> Peer:
    pem = row.flower_key.encode("ascii")
    keys: Sequence[KeyRing] = [KeyRing([VerifyKey.from_text(text)]) for text in (row.release_key, row.audit_key)]
    return Peer(row.site, pem, base64.b64encode(pem).decode("ascii"), keys[0], keys[1])
