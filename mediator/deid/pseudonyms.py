"""What replaces an identifier: keyed BLAKE2b, so that nobody without the site's key can try all hospital numbers.

Unkeyed, all 10^7 eight-digit numbers fall in seconds. The key of the site is 32 bytes; from it each project gets its
own, so that pseudonyms and UIDs of two projects cannot be joined. No table is kept: the same key, project and
identifier give the same pseudonym on any day and machine.

* *Stage 1* (`local`): under the hospital's secret alone, so that a patient has one pseudonym at this hospital.
* *Stage 2*: under the key of one project and site, from whatever PatientID and issuer the file holds: stage 1's
  pseudonym, and the site as its issuer.
"""

from __future__ import annotations

import base64
import hashlib
import uuid

SITE_KEY_BYTES = 32
MAX_SHIFT_DAYS = 3650
# The rule of `normalise`. Another rule is another number, for it gives patients other pseudonyms.
NORMALISATION = 1


class Pseudonyms:
    """Everything keyed for one (site, project). Pure: equal arguments, equal answers.

    `site` is named where one key file serves several sites; a node's key is its site's own, so it may be left out.
    """

    def __init__(self, site_key: bytes, project: str, site: str = "") -> None:
        self._key = _derive(site_key, f"{project}\x1f{site}" if site else project, b"cloister.project")

    @classmethod
    def local(cls, site_key: bytes, site: str) -> Pseudonyms:
        """Stage 1's: one hospital's own, whatever the project."""
        made = cls.__new__(cls)
        made._key = _derive(site_key, site, b"cloister.local")
        return made

    def __repr__(self) -> str:
        return "Pseudonyms(…)"

    def patient(self, identifier: str, issuer: str = "") -> str:
        """128 bits as 32 hexadecimal digits for a patient id of one issuer."""
        return self._digest("patient", normalise(identifier, issuer), 16).hex()

    def study(self, study_uid: str) -> str:
        """128 bits as 32 hexadecimal digits: the name of a study's folder and its id in manifests."""
        return self._digest("study", study_uid.strip(), 16).hex()

    def accession(self, number: str, issuer: str = "") -> str:
        """80 bits as 16 letters and digits: all that fits VR SH (PS3.5 6.2)."""
        return base64.b32encode(self._digest("accession", normalise(number, issuer), 10)).decode()

    def label(self, name: str) -> str:
        """80 bits as 16 letters and digits (all that fits VR CS) for a name that others in a file refer to."""
        return base64.b32encode(self._digest("label", name.strip(), 10)).decode()

    def site(self, name: str) -> str:
        """64 bits as 16 hexadecimal digits for a site's id."""
        return self._digest("site", name.strip(), 8).hex()

    def nobody(self, sop_instance: str) -> str:
        """In place of a pseudonym where there is no patient id: a number for this instance alone, shared by none."""
        return self._digest("nobody", sop_instance.strip(), 16).hex()

    def uid(self, uid: str) -> str:
        """A UID under 2.25 (PS3.5 B.2, a UUID as an integer): at most 44 characters, no organisation's root."""
        raw = bytearray(self._digest("uid", uid.strip(), 16))
        raw[6] = (raw[6] & 0x0F) | 0x80  # RFC 9562 version 8: a UUID by a rule of one's own
        raw[8] = (raw[8] & 0x3F) | 0x80
        return f"2.25.{uuid.UUID(bytes=bytes(raw)).int}"

    def shift_days(self, identifier: str, issuer: str = "") -> int:
        """How many days (1 to 3,650) all dates of this patient move into the past."""
        raw = self._digest("date", normalise(identifier, issuer), 8)
        return 1 + int.from_bytes(raw, "big") % MAX_SHIFT_DAYS

    def fraction(self, patient: str) -> float:
        """A number in [0, 1) for a patient's pseudonym: which side of a split they stand on, for good."""
        return int.from_bytes(self._digest("split", patient, 6), "big") / float(1 << 48)

    def _digest(self, person: str, text: str, size: int) -> bytes:
        return hashlib.blake2b(
            text.encode("utf-8", "surrogateescape"), key=self._key, person=person.encode(), digest_size=size
        ).digest()


def _derive(site_key: bytes, text: str, person: bytes) -> bytes:
    if len(site_key) != SITE_KEY_BYTES:
        raise ValueError(f"a site key is exactly {SITE_KEY_BYTES} bytes")
    return hashlib.blake2b(text.encode(), key=site_key, person=person, digest_size=32).digest()


def normalise(identifier: str, issuer: str = "") -> str:
    """Rule 1: blanks around it and letter case do not make another patient; the issuer and leading zeros do."""
    blanks = " \t\r\n\0"
    return f"{issuer.strip(blanks).upper()}\x1f{identifier.strip(blanks).upper()}"
