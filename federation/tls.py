"""TLS contexts for both ends: version 1.3 alone, a certificate from each side, revocation checked by the hub.

The one module of the product that imports `ssl`.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from mediator.errors import NotNow

Context = ssl.SSLContext
TlsError = ssl.SSLError
# For HTTP over a socket of our own, without TLS: else a client reads all authorities of the machine.
TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
# openssl-verification-options(1): not yet valid, expired; the host's name or address is not in it
_UNVERIFIED: Mapping[int, Literal["time", "name"]] = {9: "time", 10: "time", 62: "name", 64: "name"}


def _context(protocol: int, ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    # no system store: a certificate authority of the public web has no say here
    context.load_verify_locations(cafile=str(ca))
    context.load_cert_chain(str(certificate), str(key))
    return context


def client_context(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """The link's end: trusts `ca` alone, checks the hub's name, shows the node's certificate."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, ca, certificate, key)
    context.check_hostname = True
    return context


def unverified_context() -> Context:
    """For a first contact, which trusts nothing of what it hears by TLS: whoever lies on the way may read it and answer
    in the hub's place."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def show_certificate(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Show this certificate from the next handshake on; connections that stand keep the one they showed."""
    context.load_cert_chain(str(certificate), str(key))


def failure(error: BaseException | None) -> str | None:
    """OpenSSL's name for why TLS failed, where that is what an error came from (`SSLV3_ALERT_CERTIFICATE_REVOKED`)."""
    while error is not None:
        # a client may raise a kind of its own, which has no reason, in the place of OpenSSL's
        if isinstance(error, ssl.SSLError) and (reason := getattr(error, "reason", None)):
            return str(reason)
        error = error.__cause__ or error.__context__
    return None


def unverified_for(error: BaseException | None) -> Literal["time", "name"] | None:
    """What alone was wrong with a certificate of the right authority: when it is in force, or whose name it has."""
    while error is not None:
        # a client's own kind has no code, see above
        if isinstance(error, ssl.SSLCertVerificationError) and (code := getattr(error, "verify_code", None)):
            return _UNVERIFIED.get(code)
        error = error.__cause__ or error.__context__
    return None


def shown_by(host: str, port: int, name: str, patience_s: float) -> bytes:
    """The certificate (DER) that a server shows who shows it none, not verified: nobody may trust it by this.

    TLS 1.3 alone, as the link speaks it. Raises `NotNow`, with what went wrong in words.
    """
    context = unverified_context()
    try:
        with (
            socket.create_connection((host, port), timeout=patience_s) as plain,
            context.wrap_socket(plain, server_hostname=name) as shaken,
        ):
            return shaken.getpeercert(binary_form=True) or b""
    except (socket.gaierror, UnicodeError):  # the second for what cannot be a name: an empty part, or one too long
        raise NotNow("its name has no address", hint="see [hub] host, and the machine's resolver") from None
    except ConnectionRefusedError:
        raise NotNow("nothing listens there", hint="see [hub] port, and whether the hub runs") from None
    except TimeoutError:
        raise NotNow("no answer", hint="see the firewall: the link needs this one port, outbound") from None
    except ssl.SSLError:
        raise NotNow("what answers does not speak TLS 1.3", hint="see [hub] port, and what lies on the way") from None
    except OSError as error:
        raise NotNow(os.strerror(error.errno or 0).lower()) from None


class _Telling(ssl.SSLObject):
    """A handshake that tells the peer why it failed.

    asyncio drops the connection in the moment of failure, with the alert still in its buffer; the peer sees a reset and
    cannot tell a revoked certificate from a broken network. One round of "want more data" makes asyncio flush first;
    whatever comes next, the handshake fails for good (and asyncio's own limit ends a peer that sends nothing).
    """

    _failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self._failure = error
            raise ssl.SSLWantReadError("the alert goes out first") from error


class ServerContext:
    """The ingress's end: asks every client for a certificate of `ca` that is not on the revocation list.

    `reload` takes a new list (and a new server certificate) for all later handshakes without closing the listener:
    each handshake is moved to the newest inner context before the client's certificate is looked at. OpenSSL keeps
    every list it was ever given, and prefers the newer of two only by whole seconds, so adding to one store is not
    enough.

    `for_newcomers` is for the minutes in which a site is being enrolled: it lets in who shows no certificate at all.
    """

    def __init__(self, ca: Path, certificate: Path, key: Path, crl: Path) -> None:
        self._files = (ca, certificate, key, crl)
        self._newest = self._build()
        self.context, self.for_newcomers = self._build(), self._build()
        # what a certificate must be stays as it is; only that there is one is not asked for
        self.for_newcomers.verify_mode = ssl.CERT_OPTIONAL
        for context in (self.context, self.for_newcomers):
            context.sni_callback = self._choose
            context.sslobject_class = _Telling

    def reload(self) -> None:
        """Read the revocation list and the server's certificate again. Raises `OSError` or `TlsError`."""
        self._newest = self._build()

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._newest

    def _build(self) -> ssl.SSLContext:
        ca, certificate, key, crl = self._files
        context = _context(ssl.PROTOCOL_TLS_SERVER, ca, certificate, key)
        context.load_verify_locations(cafile=str(crl))
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF | ssl.VERIFY_X509_STRICT
        # a resumed session shows no certificate, so a revoked node could come back with an old ticket
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        return context
