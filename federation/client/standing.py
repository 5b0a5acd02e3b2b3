"""Why the hub has no business with this node: a word for core, and what hospital IT reads and does about it.

TLS says it by the alert that ends a handshake (RFC 8446 section 6.2), the hub's door by a code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from federation import tls
from federation.client.hub_errors import HubApart
from federation.client.ports import Trouble
from mediator.errors import CloisterError, Code, Denied

# how often a node looks whether it was enrolled, or enrolled anew, while it runs
_LOOK_S = 1.0
_ANEW = "`cloister node enrol --new-keys`: no restart is needed"


@dataclass(frozen=True)
class Words:
    """What a trouble means, and what mends it."""

    meaning: str
    mend: str


WORDS: Mapping[Trouble, Words] = {
    "not_enrolled": Words(
        "this node is not enrolled at a hub", "`cloister node enrol`, on the telephone with the hub's operator"
    ),
    "revoked": Words("the hub has revoked this site", f"telephone the hub's operator; to come back: {_ANEW}"),
    "expired": Words("this node's certificate has expired", _ANEW),
    "replaced": Words(
        "the hub knows a newer certificate of this site than this node has: it may be in other hands",
        f"telephone the hub's operator; then {_ANEW}",
    ),
    "unknown_here": Words("the hub does not know the authority of this node's certificate: it was made anew", _ANEW),
    "another_hub": Words(
        "what answers at the hub's address does not show the certificate of the hub that enrolled this node",
        "see [hub] host and port, and whether something on the way opens TLS; telephone the hub's operator",
    ),
    "hub_not_in_force": Words(
        "by this machine's clock the hub's certificate has expired or is not valid yet",
        "see this machine's clock (timedatectl); if it is right, the hub's operator renews it by a restart",
    ),
    "hub_not_named": Words(
        "the hub's certificate is not for the name by which this node calls it",
        "see [hub] host (or server_name): write a name that the hub's [ingress] hosts has",
    ),
    "hub_too_old": Words(
        "the hub's version is more than one behind this node's", "telephone the hub's operator; nothing is lost"
    ),
    "node_too_old": Words(
        "this node's version is more than one behind the hub's", "install.sh upgrade; nothing is lost until then"
    ),
    "refused": Words("the hub does not take this node's certificate", "telephone the hub's operator"),
}
_ALERTS: Mapping[str, Trouble] = {
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "revoked",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "expired",
    "TLSV1_ALERT_UNKNOWN_CA": "unknown_here",
    "CERTIFICATE_VERIFY_FAILED": "another_hub",
}
_UNVERIFIED: Mapping[str, Trouble] = {"time": "hub_not_in_force", "name": "hub_not_named"}
_CODES: Mapping[Code, Trouble] = {Code.CERTIFICATE_REPLACED: "replaced", Code.SITE_NOT_NAMED: "refused"}


def trouble_of(error: BaseException) -> Trouble | None:
    """What an error says of this node's standing; None where it says nothing (a hub that does not answer, say)."""
    if isinstance(error, HubApart):
        return "hub_too_old" if error.hub_is_older else "node_too_old"
    if isinstance(error, Denied):
        return _CODES.get(error.reasons[0].code)
    if isinstance(error, CloisterError):
        if (wrong := tls.unverified_for(error)) is not None:
            return _UNVERIFIED[wrong]
        return _ALERTS.get(tls.failure(error) or "")
    return None


async def changed(folder: Path, before: object) -> None:
    """Return once a bundle is installed in `folder` that is another than `before` (`mark`). It is what is written last
    there."""
    while mark(folder) in (None, before):
        await asyncio.sleep(_LOOK_S)


def mark(folder: Path) -> object:
    """What tells one installed bundle from the next; None where there is none."""
    try:
        seen = (folder / "bundle.json").stat()
    except OSError:
        return None
    return seen.st_ino, seen.st_mtime_ns, seen.st_size
