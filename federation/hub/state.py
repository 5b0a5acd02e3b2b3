"""A hub's state folder, opened: what the command line works on, and the running hub too.

    hub.db               sites, documents, runs, envelopes, witnessed checkpoints
    pki/                 the certificate authority
    keys/                instruction.key, witness.key (never the committee's, never a researcher's)
    checkpoints/<run>/   model and history after every round
    superlink/           the SuperLink's database, log and home
    run/lock             held by the running hub
    run/notify.sock      a datagram here tells the running hub to look at `hub.db` again

Every command works on the files themselves, whether the hub runs or not.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from federation import introduction
from federation.files import make_folder
from federation.hub import keys
from federation.hub.certificates import Certificates
from federation.hub.checkpoints import Checkpoints
from federation.hub.config import HubConfig, placeholders
from federation.hub.database import Database
from federation.hub.documents import HubDocuments
from federation.hub.export import Export, Exports
from federation.hub.invitations import Invitations
from federation.hub.overview import Overview
from federation.hub.reach import own
from federation.hub.registry import HubIdentity, Registry
from federation.hub.runs import HubRuns
from federation.hub.witness import Witness
from federation.pki import Authority
from mediator.errors import NotNow, UsageFault
from mediator.grammar import Ungrammatical, check_identifier
from mediator.signatures import KeyRing, SigningKey, VerifyKey
from mediator.types import DataPermit, RunOrder

# who looks at the hub's state conducts nothing, and does not wait for numpy
if TYPE_CHECKING:
    from federation.hub.conductor import Conductor

# sockaddr_un holds 108 bytes with the closing NUL (unix(7))
_MAX_SOCKET_BYTES = 107
_NOTIFY, _SUPERLINK = "run/notify.sock", "superlink/superlink.sock"


def utc_now() -> datetime:
    return datetime.now(UTC)


def _check_filled_in(config: HubConfig) -> None:
    """Raise `UsageFault` for what the example leaves to be changed: the host goes into certificates, which stay."""
    for wrong, mend in placeholders(config):
        raise UsageFault(f"the hub's configuration: {wrong}", hint=mend)


def check_sockets(folder: Path) -> None:
    """Raise `UsageFault` for a state folder under which the running hub could not bind its sockets."""
    longest = max(len(os.fsencode(folder / name)) for name in (_NOTIFY, _SUPERLINK))
    if over := max(0, longest - _MAX_SOCKET_BYTES):
        room = len(os.fsencode(folder)) - over
        raise UsageFault(
            "the path of the state folder is too long for the sockets below it", hint=f"at most {room} bytes"
        )


class HubState:
    """The operator's desk: everything `cloister hub …` does, apart from serving."""

    def __init__(self, config: HubConfig, clock: Callable[[], datetime] = utc_now) -> None:
        folder = config.state_dir
        if not own(folder / "hub.db"):
            raise UsageFault("this hub has no state yet", hint="run `cloister hub init`")
        self.config = config
        self.clock = clock
        self.database = Database(folder / "hub.db")
        self.database.upgrade()
        self.overview = Overview(folder / "hub.db")
        self.authority = Authority(folder / "pki")
        self.checkpoints = Checkpoints(make_folder(folder / "checkpoints"))
        committee = KeyRing(VerifyKey.from_text(text) for text in config.trust.committee_keys)
        self.documents = HubDocuments(self.database, committee, clock)
        self.registry = Registry(self.database, self.authority, clock)
        self.invitations = Invitations(self.database, self.registry, clock)
        self.certificates = Certificates(self.database, self.authority, clock)
        self.witness = Witness(self.database, clock)
        self.runs = HubRuns(self.database, self.documents, self.checkpoints, clock)
        self.exports = Exports(self.database, self.documents, self.checkpoints, clock)
        self.notify_socket = make_folder(folder / "run") / Path(_NOTIFY).name

    @classmethod
    def create(cls, config: HubConfig, clock: Callable[[], datetime] = utc_now) -> HubState:
        """Make a new hub's state folder: database, certificate authority, signing keys; whole or not at all.

        Raises `UsageFault`, `NotNow`.
        """
        _check_filled_in(config)
        folder = config.state_dir
        check_sockets(folder)
        if own(folder) and any(folder.iterdir()):
            raise UsageFault("the state folder is not empty", hint="a hub is made once")
        make_folder(folder)
        try:
            Authority.create(folder / "pki", config.name, config.ingress.hosts, clock())
            keys.create_keys(folder / "keys")
            with contextlib.closing(Database(folder / "hub.db")) as database:
                database.upgrade()
            return cls(config, clock)
        except BaseException:
            # a hub that is half made could neither run nor be made again
            for entry in folder.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
            raise

    def approve(self, request: bytes, told: str, *, again: bool = False) -> bytes:
        """Enrol a node: its request (JSON) becomes its bundle (JSON); `told` is the request id that the site read out,
        `again` brings a revoked site back. Raises `Malformed`, `Denied`, `UsageFault`."""
        bundle = self.registry.approve(request, told, self.identity, _actor(), again=again)
        self.notify()
        return bundle

    def invite(self, site: str, words: str, *, again: bool = False) -> int:
        """Let in the one request that six words stand for, for half an hour. Returns the invitation's number.

        Raises `UsageFault`, and `NotNow` while the hub is not running.
        """
        code = introduction.code_in(words)
        self.check_invitable(site, again=again)
        number = self.invitations.open(site, code, _actor(), again=again)
        self.notify()
        return number

    def check_invitable(self, site: str, *, again: bool = False) -> None:
        """Raise `UsageFault` for a site that could not be enrolled now, `NotNow` while the hub is not running."""
        try:
            check_identifier(site, "site")
        except Ungrammatical as error:
            raise UsageFault(str(error), hint=error.hint) from error
        self.registry.may_come(site, again=again)
        if not self._is_serving():
            raise NotNow("the hub is not running", hint="start it: cloister hub serve")

    def uninvite(self, number: int) -> None:
        """Nobody waits for an invitation any more."""
        self.invitations.close(number)
        self.notify()

    @property
    def identity(self) -> HubIdentity:
        return HubIdentity(self.config.ingress.url, self.instruction_key, self.witness_key.verify_key)

    def revoke(self, site: str) -> None:
        """End a node: the running hub refuses it and closes its connections at once."""
        self.registry.revoke(site, _actor())
        self.notify()

    def nodes(self) -> list[dict[str, Any]]:
        return self.overview.nodes()

    def alarms(self) -> list[dict[str, Any]]:
        return self.overview.alarms()

    def events(self, newest: int) -> list[dict[str, Any]]:
        return self.overview.events(newest)

    def submit_permit(self, text: str) -> DataPermit:
        permit = self.documents.submit_permit(text, _actor()).document
        self.notify()
        return permit

    def submit_revocations(self, text: str) -> None:
        self.documents.submit_revocations(text, _actor())
        self.notify()

    def submit_order(self, text: str, model: bytes) -> RunOrder:
        """Take in a run order with its untrained model (safetensors); the running hub begins it at once."""
        signed = self.runs.submit(text, model, self.config.runs.minimum_sites, _actor())
        self.notify()
        return signed.document

    def submit_local(self, text: str) -> RunOrder:
        """Pass an order for local analyses on to the sites; nothing is conducted."""
        signed = self.documents.submit_local(text, _actor())
        self.notify()
        return signed.document

    def stop_run(self, run: str) -> None:
        self.runs.stop(run, _actor())
        self.notify()

    def resume_run(self, run: str) -> None:
        self.runs.resume(run, _actor())
        self.notify()

    def list_runs(self) -> list[dict[str, Any]]:
        return self.overview.runs()

    def run_history(self, run: str) -> dict[str, Any]:
        return self.overview.history(run)

    def export_run(self, run: str, round_: int | None = None) -> Export:
        """The trained model of a run with its history and lineage; recorded as allowed before it is returned."""
        return self.exports.make(run, round_, _actor())

    def exported(self, export: Export) -> None:
        """Record that an export's files were written."""
        self.exports.written(export, _actor())

    @property
    def instruction_key(self) -> SigningKey:
        return keys.load_key(self.config.state_dir / "keys" / keys.INSTRUCTION)

    @property
    def witness_key(self) -> SigningKey:
        return keys.load_key(self.config.state_dir / "keys" / keys.WITNESS)

    def _is_serving(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            try:
                sender.connect(str(self.notify_socket))
            except OSError:
                return False
        return True

    def notify(self) -> None:
        """Tell the running hub, if one runs; one that does not reads everything when it starts."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(OSError):
            sender.setblocking(False)
            sender.sendto(b"\n", str(self.notify_socket))

    def conductor(self, order: RunOrder, permit: DataPermit, wake: Callable[[Sequence[str]], None]) -> Conductor:
        """A conductor for one attempt at a run. A site that is no longer enrolled is missing from it."""
        peers = self.registry.active()
        enrolled = [site for site in order.sites if site in peers]
        limits = self.config.runs
        from federation.hub.conductor import Conductor

        return Conductor(
            order,
            permit,
            database=self.database,
            checkpoints=self.checkpoints,
            key=self.instruction_key,
            flower_keys={site: peers[site].flower_key for site in enrolled},
            release_keys={site: peers[site].release_keys for site in enrolled},
            clock=self.clock,
            wake=wake,
            poll_s=limits.poll_s,
            timeout_s=limits.round_timeout_s,
            patience_s=limits.patience_s,
        )

    def close(self) -> None:
        self.database.close()


def _actor() -> str:
    try:
        return getpass.getuser()[:64]
    except (KeyError, OSError):
        return "unknown"
