"""`cloister hub check`: what stands at the hub, what is missing, one line each, and what mends it."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mediator.canonical import parse_time
from mediator.errors import CloisterError
from mediator.signatures import VerifyKey
from node.cli.check_disk import disk, volume
from node.cli.findings import State, finding, report
from node.cli.options import HubConfigPath, Json
from node.host.accounts import Account, acting_as

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from federation.hub.config import HubConfig
    from federation.hub.state import HubState

# a year is what it takes to tell every hospital of a new authority
_CA_WARNING = timedelta(days=365)
_SERVER_WARNING, _SITE_WARNING = timedelta(days=25), timedelta(days=9)
# what is connected is noted every ten minutes
_SILENT = timedelta(hours=1)
_PATIENCE_S = 5.0
_SERVE = "cloister hub serve (or systemctl start cloister-hub.target)"


def check(config: HubConfigPath, as_json: Json = False) -> None:
    """Check this hub: configuration, keys, state folder, disk, port, certificates, Flower's process and the sites.

    Each line says what mends it. Exit code 5 when anything is missing.
    """
    report(list(findings(config)), as_json=as_json)


def findings(path: Path) -> Iterator[dict[str, Any]]:
    """Every line of the hub's check."""
    from federation.hub.config import load_config, placeholders

    config = load_config(path)
    yield finding("configuration", "ok", f"hub {config.name}, {config.ingress.url}")
    for wrong, mend in placeholders(config):
        yield finding("placeholder", "missing", wrong, mend)
    yield _committee(config)
    yield disk("state disk", config.state_dir)
    yield from volume("state volume", config.state_dir)
    folder = _state_folder(config.state_dir)
    yield folder
    if folder["state"] != "ok":
        return
    yield from _keys(config.state_dir)
    owner = config.state_dir.stat()
    with acting_as(Account(owner.st_uid, owner.st_gid)):  # a database that root has opened keeps files of root's
        yield from _of_state(config)


def _of_state(config: HubConfig) -> list[dict[str, Any]]:
    from federation.hub.state import HubState

    try:
        hub = HubState(config)
    except CloisterError as error:
        return [finding("database", "missing", error.message, error.hint or "cloister hub init, or restore a backup")]
    try:
        return list(_opened(hub))
    finally:
        hub.close()


def _opened(hub: HubState) -> Iterator[dict[str, Any]]:
    door = _door(hub)
    yield door
    yield from _authority(hub)
    yield _flower(hub.config.state_dir / "superlink" / "superlink.sock", runs=door["state"] == "ok")
    yield from _sites(hub)


def _committee(config: HubConfig) -> dict[str, Any]:
    keys = [VerifyKey.from_text(text).key_id for text in config.trust.committee_keys]
    return finding("committee key", "ok", f"{', '.join(keys)}: what they signed is passed on")


def _state_folder(folder: Path) -> dict[str, Any]:
    """Whether it is there, this user's, and nobody else's."""
    try:
        seen = folder.lstat()
        made = (folder / "hub.db").exists()
    except FileNotFoundError:
        return finding("state folder", "missing", f"{folder} is not there", "cloister hub init")
    except OSError as error:
        return finding("state folder", "unknown", f"{folder}: {os.strerror(error.errno or 0).lower()}")
    if not stat.S_ISDIR(seen.st_mode):
        return finding("state folder", "missing", f"{folder} is not a folder", "write the real one in state_dir")
    if seen.st_uid != os.geteuid() and os.geteuid() != 0:
        return finding("state folder", "unknown", f"{folder} belongs to another user: run it as the hub's own")
    if not made:
        return finding("state folder", "missing", f"{folder} holds no hub", "cloister hub init")
    if seen.st_mode & 0o077:
        detail = f"{folder} has mode {stat.S_IMODE(seen.st_mode):o}: others may look into it"
        return finding("state folder", "missing", detail, f"chmod 700 {folder}")
    return finding("state folder", "ok", str(folder))


def _keys(folder: Path) -> Iterator[dict[str, Any]]:
    from federation.hub import keys

    owner = folder.stat().st_uid
    for name in (keys.INSTRUCTION, keys.WITNESS):
        path, what = folder / "keys" / name, f"{name.removesuffix('.key')} key"
        try:
            seen = path.stat()
        except OSError as error:
            detail = f"{path}: {os.strerror(error.errno or 0).lower()}"
            yield finding(what, "missing", detail, "restore it from a backup: sites trust this key")
            continue
        if seen.st_mode & 0o077 or seen.st_uid != owner:
            detail = f"{path} is readable by others or belongs to somebody else"
            yield finding(what, "missing", detail, f"chmod 600 {path}; chown {owner} {path}")
            continue
        try:
            public = path.with_suffix(".pub").read_text("ascii").strip()
            yield finding(what, "ok", f"{public} (key id {VerifyKey.from_text(public).key_id})")
        except (OSError, ValueError, CloisterError):
            detail = f"{path.with_suffix('.pub')} does not hold its public half"
            yield finding(what, "warning", detail, "restore it from a backup: sites are told it by this file")


def _door(hub: HubState) -> dict[str, Any]:
    """Who listens at the hub's port: this hub, nobody, or somebody else."""
    from federation import pki, tls

    listen = hub.config.ingress
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.listen, listen.listen)  # noqa: S104 - read, not bound
    own = _certificate(hub.authority.server_certificate)
    try:
        shown = pki.parse_der(tls.shown_by(host, listen.port, listen.hosts[0], _PATIENCE_S))
    except CloisterError:
        return _free(listen.listen, listen.port)
    if shown == own:
        return finding("port", "ok", f"this hub answers at port {listen.port}")
    if own is None:
        return finding("port", "unknown", f"somebody answers by TLS at port {listen.port}; see `server certificate`")
    mend = "another hub, or this one from before it was made anew: stop it, or change [ingress] port"
    return finding("port", "missing", f"somebody else answers by TLS at port {listen.port}", mend)


def _certificate(path: Path) -> Certificate | None:
    from federation import pki

    try:
        return pki.parse_certificate(path.read_text("ascii"))
    except (OSError, ValueError, CloisterError):
        return None


def _free(host: str, port: int) -> dict[str, Any]:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return finding("port", "warning", f"port {port} is free: the hub does not run", _SERVE)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            detail, mend = (
                f"port {port} is in use, and not by this hub",
                "ss -ltnp; stop that, or change [ingress] port",
            )
        else:
            detail = f"this user cannot listen at {host} port {port}: {os.strerror(error.errno or 0).lower()}"
            mend = "see [ingress] listen and port: an address of this machine, and a port above 1023"
        return finding("port", "missing", detail, mend)


def _authority(hub: HubState) -> Iterator[dict[str, Any]]:
    from federation import pki

    now, authority = datetime.now(UTC), hub.authority
    own, server = _certificate(authority.ca), _certificate(authority.server_certificate)
    for what, path, there in (
        ("certificate authority", authority.ca, own),
        ("server certificate", authority.server_certificate, server),
    ):
        if there is None:
            yield finding(what, "missing", f"{path} holds no certificate that can be read", "restore it from a backup")
    if own is None or server is None:
        return
    yield _days(
        "certificate authority", own.not_valid_after_utc - now, _CA_WARNING,
        "plan a new hub state folder and enrol every site anew",
    )  # fmt: skip
    yield _days(
        "server certificate", server.not_valid_after_utc - now, _SERVER_WARNING,
        "restart the hub: it renews it at its start in the last 30 days",
    )  # fmt: skip
    wanted = [host for host in hub.config.ingress.hosts if not pki.names_host(server, host)]
    if wanted:
        mend = "restart the hub: it makes one for the names in [ingress] hosts at its start"
        yield finding("server certificate", "missing", f"it does not name {', '.join(wanted)}", mend)


def _days(what: str, left: timedelta, warning: timedelta, mend: str) -> dict[str, Any]:
    state: State = "missing" if left <= timedelta(0) else "warning" if left < warning else "ok"
    word = f"{left.days} days left" if left > timedelta(0) else f"expired {-left.days} days ago"
    return finding(what, state, word, "" if state == "ok" else mend)


def _flower(path: Path, *, runs: bool) -> dict[str, Any]:
    """Flower's process, on its socket."""
    if not runs:
        return finding("Flower", "unknown", "the hub does not run")
    try:
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(_PATIENCE_S)
            asked.connect(str(path))
    except PermissionError:
        return finding("Flower", "unknown", "its socket is the hub's user's")
    except OSError:
        mend = "see superlink/superlink.log in the state folder; the hub starts it again by itself"
        return finding("Flower", "missing", "its process does not answer", mend)
    return finding("Flower", "ok", "its process answers")


def _sites(hub: HubState) -> Iterator[dict[str, Any]]:
    now, rows = datetime.now(UTC), [row for row in hub.nodes() if row["state"] == "active"]
    if not rows:
        yield finding("sites", "warning", "no site is enrolled", "cloister hub node approve REQUEST --out BUNDLE")
    for row in rows:
        yield _site(row, now)
    if alarms := hub.alarms():
        named = ", ".join(sorted({alarm["site"] for alarm in alarms}))
        yield finding("alarms", "missing", f"{len(alarms)} about {named}", "cloister hub status, and telephone them")
    else:
        yield finding("alarms", "ok", "none")


def _site(row: dict[str, Any], now: datetime) -> dict[str, Any]:
    what = f"site {row['site']}"
    left = parse_time(row["certificate_expires"]) - now
    if left < _SITE_WARNING:
        word = "has expired" if left <= timedelta(0) else f"has {left.days} days left and was not renewed"
        mend = "telephone the site; one that is expired is revoked and enrolled anew (--again)"
        return finding(what, "warning", f"its certificate {word}", mend)
    if row["connected"] is None:
        return finding(what, "warning", "never heard of", "telephone the site: cloister check says what is wrong there")
    silent = now - parse_time(row["connected"])
    word = f"last heard of {max(0.0, silent.total_seconds()) / 3600:.1f} h ago"
    if silent > _SILENT:
        return finding(what, "warning", word, "telephone the site: cloister check says what is wrong there")
    if row["witness_refused"]:
        mend = "compare with the site: cloister hub witness, and cloister node audit state there"
        return finding(what, "missing", f"its audit log is not witnessed since {row['witness_refused']}", mend)
    return finding(what, "ok", word)
