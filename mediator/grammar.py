"""The one grammar: what every id, text, length and number in a document may be, whoever writes it and whoever reads it.

A document's class asks it when the document is made, so it holds where one is opened (`signatures.open_signed`), where
one is signed (`SigningKey.sign` reads what it is about to sign) and where a command line makes one. What it lets
through can be recorded (`audit.AuditRecord`), stored, refused and answered; `tests/mediator/test_grammar.py` holds
that for every document there is.

A check raises `Ungrammatical`, a `ValueError` that says which rule and shows how it is kept; it repeats no value.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from typing import Any

# --- sizes: one limit for both directions -------------------------------------------------------------------

# RFC 8785 rests on IEEE 754 doubles: integers beyond 2^53 - 1 have no exact print.
MAX_INTEGER = (1 << 53) - 1
# The one limit of a document, signed or read: a permit of a thousand tensors is about 100 kB, and the release envelope
# of 5,500, two objects and more for each, 1 MiB (`sizes`).
MAX_DOCUMENT_BYTES = 1 << 20
# header and signature add under 300 bytes to base64 of the largest document
MAX_SIGNED_BYTES = MAX_DOCUMENT_BYTES * 4 // 3 + 1024

# --- ids ----------------------------------------------------------------------------------------------------

# of runs, permits, sites, projects, datasets and persons, in documents, messages and records
IDENTIFIER = r"[a-z0-9][a-z0-9._-]{0,63}"
HEX256 = r"[0-9a-f]{64}"
DIGEST = rf"sha256:{HEX256}"
# a whole number from 0, at most `MAX_INTEGER`, and a counted one
NUMBER = r"(0|[1-9][0-9]{0,15})"
_COUNTED = r"[1-9][0-9]{0,15}"
# a permit and its version, as records name it
PERMIT = rf"{IDENTIFIER}@{_COUNTED}"
# a role, a dot and the person fill an audit record's actor, which is an identifier
MAX_PERSON = 48
# stands for a person where a record knows the role alone; nobody is called that
UNKNOWN = "unknown"
# names of tensors and metrics: what torch's state dict and Flower's examples use, nothing that holds text
NAME = r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,127}"
# what the driver calls a GPU or a slice of one; never its number, which another GPU has after the next start
GPU = r"(GPU|MIG)-[A-Za-z0-9/-]{1,80}"
# a study or a patient, as a dataset names them, and an image of a study
PSEUDONYM = r"[0-9a-f]{32}"
INSTANCE = r"[0-9]{4,9}\.dcm"
# a word of a text column, on its way in and out: never a formula's first character, never a comma or a quote
WORD = r"[A-Za-z0-9][A-Za-z0-9 _.+-]{0,23}"

# A DICOM UID names one patient's study (PS3.5 section 9.1); 2.25 is the root of UUID-derived ones.
DICOM_UID = r"[0-9]+(\.[0-9]+){4,}|(^|[^0-9])2\.25\."

_UID = re.compile(DICOM_UID)
_IDENTIFIER, _HEX256, _DIGEST, _NAME, _GPU = map(re.compile, (IDENTIFIER, HEX256, DIGEST, NAME, GPU))

# --- texts and lists that people write ----------------------------------------------------------------------

# a purpose or a legal basis: some five pages
MAX_TEXT = 10_000
# a person, an organisation, a tool, a condition, a column, a choice
MAX_LINE = 200
# persons, images, sites, versions of one site, columns: what people still read
MAX_LISTED = 1000

# --- numbers ------------------------------------------------------------------------------------------------

# the least that an engine can be told to grant, and more than any machine has
CPUS = (0.01, 65_536.0)
# the kernel's own limit (proc(5), pid_max)
MAX_PIDS = 1 << 22
MAX_GPUS = 1024
# a task of a year
MAX_SECONDS = 366 * 86_400
# Beyond these the accountant's own arithmetic ends, and no such budget protects or allows anything.
EPSILON = (1e-9, 1e9)
NOISE_MULTIPLIER = (1e-9, 1e6)
DELTA = (1e-30, 1.0)


class Ungrammatical(ValueError):
    """A value that no document has. `hint` says what one is like."""

    def __init__(self, rule: str, hint: str = "") -> None:
        super().__init__(rule)
        self.hint = hint


def instruction_id(kinds: Iterable[str]) -> str:
    """`run/round/task/attempt`, for tasks of these kinds."""
    return rf"{IDENTIFIER}/{NUMBER}/({'|'.join(kinds)})/{_COUNTED}"


def check_identifier(text: str, what: str) -> None:
    """Raise unless `text` is 1 to 64 of a-z, 0-9, dot, dash, underscore."""
    if not _IDENTIFIER.fullmatch(text):
        rule = f"{what} is not 1 to 64 of a-z, 0-9, dot, dash, underscore"
        raise Ungrammatical(rule, "an id begins with a letter or a digit, for example lung-2026 or hospital_a.2")


def check_tool(text: str, what: str) -> None:
    """Raise unless `text` may name a program and its version, in a record too."""
    if not _IDENTIFIER.fullmatch(text) or _UID.search(text):
        rule = f"{what} is not 1 to 64 of a-z, 0-9, dot, dash, underscore, or reads like a DICOM UID"
        raise Ungrammatical(rule, "name the program and its version, for example pydeface-2.1")


def check_person(text: str, what: str) -> None:
    """Raise unless `text` is an identifier that a record has room for behind a role."""
    check_identifier(text, what)
    if len(text) > MAX_PERSON:
        raise Ungrammatical(f"{what} is longer than {MAX_PERSON} characters")


def check_digest(text: str, what: str) -> None:
    """Raise unless `text` is a digest: a tag names whatever somebody pushed last."""
    if not _DIGEST.fullmatch(text):
        raise Ungrammatical(f"{what} is not a digest (sha256: and 64 hexadecimal digits)")


def check_hex256(text: str, what: str) -> None:
    """Raise unless `text` is 64 hexadecimal digits in lower case (a SHA-256, a public key)."""
    if not _HEX256.fullmatch(text):
        raise Ungrammatical(f"{what} is not 64 hexadecimal digits")


def check_name(text: str, what: str) -> None:
    """Raise unless `text` may name a tensor, a metric or a configuration key."""
    if not _NAME.fullmatch(text):
        rule = f"{what} is not a permitted name"
        raise Ungrammatical(rule, "a name is 1 to 128 of letters, digits, dot, dash, slash, underscore")


def check_gpu(text: str) -> None:
    """Raise unless `text` may name one GPU."""
    if not _GPU.fullmatch(text):
        raise Ungrammatical("a GPU is named by its UUID (GPU-… or MIG-…)")


def check_unique(texts: Iterable[str], what: str) -> None:
    """Raise when a name stands twice: which of the two would count?"""
    names = list(texts)
    if len(set(names)) != len(names):
        raise Ungrammatical(f"{what} is named twice")


def check_text(text: str, what: str, most: int = MAX_LINE) -> None:
    """Raise unless `text` is at most `most` characters, none of them a control character but line ends and tabs."""
    if len(text) > most:
        raise Ungrammatical(f"{what} is longer than {most} characters")
    if any(unicodedata.category(each) in ("Cc", "Cs") and each not in "\n\r\t" for each in text):
        raise Ungrammatical(f"{what} holds a control character")


def check_texts(texts: Collection[str], what: str, most: int = MAX_LINE) -> None:
    """Raise unless these are at most `MAX_LISTED` texts, each as `check_text` has it."""
    check_listed(texts, what)
    for text in texts:
        check_text(text, what, most)


def check_listed(entries: Collection[Any], what: str) -> None:
    """Raise where there are more than `MAX_LISTED`."""
    if len(entries) > MAX_LISTED:
        raise Ungrammatical(f"{what}: more than {MAX_LISTED} are named")


def check_path(text: str, what: str) -> None:
    """Raise unless `text` is an absolute path that the kernel takes."""
    if not text.startswith("/") or "\0" in text or len(text.encode("utf-8", "replace")) > 4096:
        raise Ungrammatical(f"{what} is not an absolute path of at most 4096 bytes")


def check_number(number: int, what: str, least: int = 0, most: int = MAX_INTEGER) -> None:
    """Raise unless `number` lies in this range."""
    if not least <= number <= most:
        shown = "2^53 - 1" if most == MAX_INTEGER else most
        raise Ungrammatical(f"{what} is not a whole number of {least} to {shown}")


def check_version(number: int, what: str) -> None:
    """Raise unless `number` counts something from 1: a permit's version, a list's number, an attempt."""
    check_number(number, what, 1)


def check_real(number: float, what: str, least: float, most: float) -> None:
    """Raise unless `number` is finite and lies in this range."""
    if not (math.isfinite(number) and least <= number <= most):
        raise Ungrammatical(f"{what} is not a number of {least:g} to {most:g}")


def check_settings(config: Mapping[str, Any], what: str) -> None:
    """Raise unless a configuration's keys are names, its texts lines, its numbers finite; a permit says the rest."""
    check_listed(config, what)
    for name, value in config.items():
        check_name(name, f"a key of {what}")
        if isinstance(value, str):
            check_text(value, f"a text of {what}")
        if isinstance(value, float) and not math.isfinite(value):
            raise Ungrammatical(f"a number of {what} is not finite")
