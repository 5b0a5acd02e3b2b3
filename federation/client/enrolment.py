"""Enrolment by files: what the link keeps in its folder, the request to the hub's operator, the bundle that comes back.

The folder holds `tls.key`, `tls.crt`, `ca.crt`, `flower.key` and `bundle.json`; keys are made here and never leave.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from durable.files import replace_file
from federation import pki
from federation.control import EnrolmentAnswer, EnrolmentBundle, EnrolmentRequest, decode, encode, signed_part
from federation.files import make_folder
from federation.protocol import PROTOCOL
from mediator.errors import Code, Denied, Malformed, Reason, UsageFault
from mediator.signatures import KeyRing, VerifyKey
from mediator.sizes import MAX_MODEL_BYTES

_ANEW = "install the answer to the request that was made last, or make a new one"


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class LinkConfig:
    """All that the link process is told. `spool` is where core puts envelopes' objects.

    The hub says when an instruction waits; `poll_slow_s` is how often the link looks all the same, `poll_fast_s` how
    often while messages come.
    """

    folder: Path
    spool: Path
    software: str = "0"
    spoken: int = PROTOCOL
    max_model_bytes: int = MAX_MODEL_BYTES
    poll_fast_s: float = 0.05
    poll_slow_s: float = 10.0


@dataclass(frozen=True)
class Enrolment:
    """An enrolled node's own files, read once."""

    bundle: EnrolmentBundle
    flower_key: bytes
    ca: Path
    certificate: Path
    key: Path

    @property
    def release_keys(self) -> KeyRing:
        return KeyRing([VerifyKey.from_text(self.bundle.release_key)])


def make_request(
    folder: Path, site: str, *, release_key: VerifyKey, audit_key: VerifyKey, new_keys: bool = False
) -> bytes:
    """A new enrolment request (JSON), with keys made in `folder` unless they are there already.

    `new_keys` are made in `folder/next`, and take the others' place when a bundle for them is installed; once they are
    there, every request is for them, until `new_keys` are asked for again: a hub may have seen these, and revoked them.
    """
    make_folder(folder)
    if new_keys and (folder / "next").exists():
        shutil.rmtree(folder / "next")
    keys = make_folder(folder / "next") if new_keys or (folder / "next" / "tls.key").exists() else folder
    tls_key = _key(keys / "tls.key", pki.new_key)
    flower = _key(keys / "flower.key", lambda: ec.generate_private_key(ec.SECP384R1()))
    request = EnrolmentRequest(
        site=site,
        request=pki.signing_request(tls_key, site),
        flower_key=_public_pem(flower),
        release_key=release_key.text,
        audit_key=audit_key.text,
    )
    return encode(request)


def open_answer(raw: bytes, hub_keys: KeyRing, now: datetime) -> EnrolmentBundle:
    """The bundle in what the hub answered.

    1. One of `hub_keys` signed it, whichever way it came: those that a person wrote into the configuration.
    2. Its certificate is whole: made by the authority that it names, which is one, and in force.

    Raises `Malformed`, `Denied`.
    """
    answer = decode(EnrolmentAnswer, raw)
    signature, text = bytes.fromhex(answer.signature), signed_part(answer.bundle)
    if not any(key.verifies(signature, text) for key in hub_keys.values()):  # (1)
        reason = "no hub key that this node's configuration trusts has signed this bundle"
        hint = "see hub in the configuration's trust section; compare it with the hub's operator by telephone"
        raise Denied(Reason(Code.UNTRUSTED_KEY, reason), hint=hint)
    bundle = decode(EnrolmentBundle, answer.bundle.encode("utf-8"))
    certificate, authority = pki.parse_certificate(bundle.certificate), pki.parse_certificate(bundle.ca)
    if not pki.issued_by(certificate, authority):  # (2)
        raise Malformed("the authority in this bundle did not make its certificate", hint=_ANEW)
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        hint = "set the clock right if it is wrong; else enrol anew: cloister node enrol --new-keys"
        raise Malformed("the certificate in this bundle is not in force by this machine's clock", hint=hint)
    return bundle


def install(folder: Path, bundle: EnrolmentBundle) -> None:
    """Put a bundle in place. Raises `Malformed` when it was not made for the newest keys in `folder`."""
    certificate = pki.parse_certificate(bundle.certificate)
    keys = folder / "next" if (folder / "next" / "tls.key").exists() else folder
    tls_key, flower = _load(keys / "tls.key"), _load(keys / "flower.key")
    if pki.common_name(certificate.subject) != bundle.site or certificate.public_key() != tls_key.public_key():
        raise Malformed("this bundle's certificate is for another key than this node's newest", hint=_ANEW)
    if bundle.flower_key != _public_pem(flower):
        raise Malformed("this bundle is for another Flower key", hint=_ANEW)
    if keys != folder:
        # copied and not moved: a crash leaves this bundle installable again
        for name in ("tls.key", "flower.key"):
            replace_file(folder / name, (keys / name).read_bytes())
    replace_file(folder / "ca.crt", bundle.ca.encode("ascii"))
    replace_file(folder / "tls.crt", bundle.certificate.encode("ascii"))
    replace_file(folder / "bundle.json", encode(bundle))
    if keys != folder:
        shutil.rmtree(keys)


def is_enrolled(folder: Path) -> bool:
    return (folder / "bundle.json").exists()


def load(folder: Path) -> Enrolment:
    """The enrolment in `folder`. Raises `UsageFault` while there is none."""
    try:
        bundle = decode(EnrolmentBundle, (folder / "bundle.json").read_bytes())
        flower_key = (folder / "flower.key").read_bytes()
    except FileNotFoundError as error:
        raise UsageFault("this node is not enrolled", hint="run `cloister node enrol`") from error
    for name in ("tls.key", "flower.key"):
        _check_private(folder / name)
    return Enrolment(bundle, flower_key, folder / "ca.crt", folder / "tls.crt", folder / "tls.key")


def renewal_request(folder: Path, site: str) -> str:
    """A signing request for the key in use: renewing moves the dates, enrolling anew the key."""
    return pki.signing_request(_load(folder / "tls.key"), site)


def install_renewed(folder: Path, certificate: str) -> None:
    """Put a renewed certificate in place. Raises `Malformed` when it is for another key."""
    if pki.parse_certificate(certificate).public_key() != _load(folder / "tls.key").public_key():
        raise Malformed("a renewed certificate for another key")
    replace_file(folder / "tls.crt", certificate.encode("ascii"))


def _key(path: Path, make: Callable[[], ec.EllipticCurvePrivateKey]) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        replace_file(path, pki.key_pem(make()))
    return _load(path)


def _load(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        _check_private(path)
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError as error:
        raise UsageFault("this node has no key of its own yet", hint="run `cloister node enrol`") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Malformed("a node key is an elliptic-curve key")
    return key


def _check_private(path: Path) -> None:
    info = path.stat()
    if stat.S_IMODE(info.st_mode) & 0o077 or info.st_uid != os.geteuid():
        raise UsageFault("a private key is readable by others or belongs to somebody else", hint="mode 0600, own user")


def _public_pem(key: ec.EllipticCurvePrivateKey) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(encoding, form).decode("ascii")
