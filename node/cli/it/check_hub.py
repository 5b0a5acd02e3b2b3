"""What `cloister check` says of the way to the hub: whether it answers, before and after enrolment, and until when."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mediator.errors import CloisterError, Malformed, NotNow
from node.cli.findings import finding
from node.host.config import NodeConfig

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

# a node whose link is well renews when a third of the life of 30 days is left
_RENEWED_DAYS = 9.0
_PATIENCE_S = 5.0
# what nobody can give an answer to sooner: a certificate's life, in seconds
_DAY_S = 86_400.0


def reachable(config: NodeConfig) -> dict[str, Any]:
    """Shake hands with the hub, showing nothing: it asks for a certificate, and shows its own."""
    from federation import pki, tls

    hub = config.hub
    try:
        shown = tls.shown_by(hub.host, hub.port, hub.name, _PATIENCE_S)
        certificate = pki.parse_der(shown)
    except NotNow as error:
        mend = error.hint or "see [hub] host and port, the firewall's row for the link, and whether the hub runs"
        return finding("hub address", "warning", f"{hub.url}: {error.message}", mend)
    except Malformed:
        mend = "see [hub] host and port: something else answers there, or something on the way opens TLS"
        return finding("hub address", "missing", f"{hub.url} shows no certificate of a hub's", mend)
    if not pki.names_host(certificate, hub.name):
        mend = "see [hub] host (or server_name): write a name that the hub's [ingress] hosts has"
        return finding("hub address", "missing", f"{hub.url} shows a certificate that is not for {hub.name}", mend)
    begin, end, now = certificate.not_valid_before_utc, certificate.not_valid_after_utc, datetime.now(UTC)
    if not begin <= now < end:
        word = f"expired on {end:%Y-%m-%d}" if now >= end else f"is not valid before {begin:%Y-%m-%d}"
        mend = "see this machine's clock (timedatectl); if it is right, the hub's operator renews it by a restart"
        return finding("hub address", "missing", f"{hub.url} shows a certificate that {word}", mend)
    issuer = pki.issuer_of(certificate)
    if not _is_ours(certificate, config):
        detail = f"{hub.url} shows a certificate of {issuer}, which is not the hub that enrolled this node"
        mend = "see [hub] host and port, and whether something on the way opens TLS; telephone the hub's operator"
        return finding("hub address", "missing", detail, mend)
    left = (end - now).total_seconds() / _DAY_S
    detail = f"{hub.url} answers by TLS 1.3, with a certificate of {issuer} for {left:.0f} more days"
    return finding("hub address", "ok", detail)


def _is_ours(certificate: Certificate, config: NodeConfig) -> bool:
    """Whether the authority that enrolled this node made a certificate; so it counts while there is none to ask."""
    from federation import pki

    try:
        authority = pki.parse_certificate((config.paths.link / "ca.crt").read_text("ascii"))
    except (CloisterError, OSError, ValueError):
        return True
    return pki.issued_by(certificate, authority)


def certificate(config: NodeConfig) -> dict[str, Any]:
    """How long the node's own certificate holds."""
    from federation import pki

    path = config.paths.link / "tls.crt"
    anew = "cloister node enrol --new-keys"
    try:
        own = pki.parse_certificate(path.read_text("ascii"))
    except FileNotFoundError:
        return finding("certificate", "warning", "this node is not enrolled yet", "cloister node enrol")
    except PermissionError:
        return finding("certificate", "unknown", f"this user may not look at {path}")
    except (CloisterError, OSError, ValueError):
        return finding("certificate", "missing", f"{path} holds no certificate", anew)
    left = (own.not_valid_after_utc - datetime.now(UTC)).total_seconds() / _DAY_S
    if left <= 0:
        return finding("certificate", "missing", f"expired {-left:.0f} days ago", anew)
    if left < _RENEWED_DAYS:
        mend = "the link renews it by itself 10 days before its end: see its log, and `hub` below"
        return finding("certificate", "warning", f"{left:.1f} days left, and not renewed", mend)
    return finding("certificate", "ok", f"{left:.1f} days left; the link renews it by itself")


def connection(status: Any) -> Iterator[dict[str, Any]]:
    """What a running node's core knows of its hub."""
    from federation.client.standing import WORDS
    from mediator.types import CLOCK_TOLERANCE

    if status.hub_connected:
        yield finding("hub", "ok", "connected")
    elif status.hub_trouble:
        said = WORDS[status.hub_trouble]
        yield finding("hub", "missing" if status.hub_trouble != "not_enrolled" else "warning", said.meaning, said.mend)
    else:
        yield finding("hub", "warning", "not connected", "see `hub address` above and the link's log")
    ahead = status.hub_clock_ahead_s
    if ahead is None:
        yield finding("clock", "unknown", "no hub has said what time it is")
        return
    word = f"the hub's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    if abs(ahead) > CLOCK_TOLERANCE.total_seconds():
        yield finding("clock", "missing", word, "set this machine's clock (timedatectl set-ntp true), or the hub's")
    else:
        yield finding("clock", "ok", word)
