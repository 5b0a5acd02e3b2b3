"""One DICOM file through a compiled table: read strictly, rebuilt from what the table lets stay, checked on disk.

The output is built anew, element by element; nothing of the input is edited in place, so what no rule asked for is not
there: preamble, file meta, private groups, group lengths, curves, overlays, padding, whatever follows the pixels.
Pixel data is copied byte for byte in its own transfer syntax (a deflated file becomes explicit VR little endian).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mediator.deid import residual
from mediator.deid.rules import Action, Rule, Table
from mediator.deid.screening import Exclusion, Facts
from mediator.deid.tables import Standard
from mediator.deid.values import Subject, decide
from node.deid import encoding
from node.deid.facts import TEXT_VRS, decode, facts_of, pixels_fit
from node.deid.profiles import load_profile, standard
from node.deid.structure import Node, Parsed, Unreadable, parse

# Bytes per value of the VRs that hold numbers (PS3.5 6.2).
_NUMBER_BYTES = {
    "US": 2, "SS": 2, "OW": 2, "UL": 4, "SL": 4, "FL": 4, "AT": 4, "FD": 8, "OV": 8, "SV": 8, "UV": 8,
}  # fmt: skip
# A removed binary value is looked for when it is text by its look and no longer than a page.
_MAX_OPAQUE_TOKEN = 1024
# Values repeat from slice to slice; a study of a thousand slices has some 50,000 different ones.
_MEMO_LIMIT = 100_000


@dataclass(frozen=True)
class Source:
    """A file that could be taken apart: what the gate needs to know, and the parts."""

    facts: Facts
    finding: Exclusion | None
    parsed: Parsed = field(repr=False)


@dataclass
class _Ledger:
    """What one instance lost (to be searched for), and what we wrote ourselves (where a match is chance)."""

    gone: list[bytes] = field(default_factory=list)
    ours: list[bytes] = field(default_factory=list)


class Engine:
    """Implements `node.usecases.deidentify.DicomEngine` for one compiled profile."""

    def __init__(self, table: Table, standard: Standard) -> None:
        self.table = table
        self._vr_of = {tag: _usual_vr(element.vrs) for tag, element in standard.elements.items()}
        self._memo: dict[tuple[int, str, bytes, bytes], tuple[Node | None, bool]] = {}
        self._memo_of: Subject | None = None

    def read(self, content: bytes) -> Source | Exclusion:
        """The file taken apart, or why it cannot be."""
        try:
            parsed = parse(content, lambda tag: self._vr_of.get(tag, "UN"))
        except Unreadable as problem:
            return problem.finding
        finding = parsed.finding or (None if pixels_fit(parsed) else Exclusion.PIXELS_INCONSISTENT)
        return Source(facts_of(parsed), finding, parsed)

    def write(self, source: Source, subject: Subject, path: Path) -> Exclusion | None:
        """De-identify into a new file (0600); None when it stands and was checked, else why it does not stand."""
        parsed = source.parsed
        if parsed.pixels is None:
            return Exclusion.PIXELS_MISSING
        ledger = _Ledger()
        charset = next((node.value for node in parsed.nodes if node.tag == 0x00080005), b"")
        nodes = self._dataset(parsed.nodes, charset, subject, ledger)
        nodes = sorted([*nodes, *self._statement(ledger)], key=lambda node: node.tag)
        sop_instance = subject.pseudonyms.uid(source.facts.sop_instance)
        sop_class = source.facts.sop_class
        if sop_class not in self.table.class_uids:
            sop_class = subject.pseudonyms.uid(sop_class)
        meta = encoding.file_meta(parsed.syntax, sop_class, sop_instance)
        before, after = encoding.pixel_frame(parsed, parsed.pixels)
        header = meta + encoding.dataset(nodes, implicit=parsed.implicit, little=parsed.little) + before
        ledger.ours.append(meta)
        pixels = memoryview(parsed.body)[parsed.pixels.start : parsed.pixels.end]
        write_new(path, (header, pixels, after))
        if self._is_clean(path, len(header), len(pixels), ledger):
            return None
        path.unlink()
        return Exclusion.RESIDUAL_IDENTIFIER

    def _is_clean(self, path: Path, header: int, pixels: int, ledger: _Ledger) -> bool:
        """Reads the file again from disk: everything but the pixel value is searched for what was removed."""
        with path.open("rb") as file:
            around = file.read(header)
            file.seek(header + pixels)
            around += file.read()
        return not residual.found_in(around, residual.tokens(ledger.gone), ledger.ours)

    def _dataset(self, nodes: Sequence[Node], charset: bytes, subject: Subject, ledger: _Ledger) -> list[Node]:
        kept = []
        for node in nodes:
            if node.items is not None:
                made = self._sequence(node, charset, subject, ledger)
            else:
                made = self._element(node, charset, subject, ledger)
            if made is not None:
                kept.append(made)
        return kept

    def _sequence(self, node: Node, charset: bytes, subject: Subject, ledger: _Ledger) -> Node | None:
        rule = self.table.rule(node.tag)
        if rule.action is Action.RECURSE and node.items is not None:
            items = []
            for item in node.items:
                own = next((inner.value for inner in item if inner.tag == 0x00080005), charset)
                items.append(tuple(self._dataset(item, own, subject, ledger)))
            return Node(node.tag, "SQ", items=tuple(items))
        _mourn(node, ledger)
        return Node(node.tag, "SQ", items=()) if rule.action is Action.EMPTY and "SQ" in rule.vrs else None

    def _element(self, node: Node, charset: bytes, subject: Subject, ledger: _Ledger) -> Node | None:
        rule = self.table.rule(node.tag)
        if rule.action is Action.REMOVE:
            _mourn(node, ledger)
            return None
        if self._memo_of is not subject or len(self._memo) > _MEMO_LIMIT:
            self._memo, self._memo_of = {}, subject
        key = (node.tag, node.vr, node.value, charset)
        found = self._memo.get(key)
        if found is None:
            found = self._memo[key] = self._apply(rule, node, charset, subject)
        made, trusted = found
        if made is None or made.value != node.value:
            _mourn(node, ledger)
        if made is not None and trusted:
            ledger.ours.append(made.value)
        return made

    def _apply(self, rule: Rule, node: Node, charset: bytes, subject: Subject) -> tuple[Node | None, bool]:
        """The element as it will be written, and whether its value is beyond doubt."""
        vr = node.vr
        if vr == "UN":
            vr = _usual_vr(rule.vrs)  # the standard knows better than the writer who did not; it must still fit
        if vr in TEXT_VRS:
            written = decide(rule, vr, decode(node.value, vr, charset), self.table, subject)
            if written is None:
                return None, True
            own = vr if vr in rule.vrs else rule.vrs[0]
            return Node(node.tag, own, encoding.text_value(own, written.values)), written.trusted
        size = _NUMBER_BYTES.get(vr)
        if rule.action is not Action.KEEP or size is None or vr not in rule.vrs or node.vr == "UN":
            return None if rule.action is not Action.EMPTY else Node(node.tag, rule.vrs[0]), True
        count, rest = divmod(len(node.value), size)
        too_many = rule.vm_max is not None and count > rule.vm_max and vr not in ("OW", "OV")
        return Node(node.tag, vr, b"" if rest or too_many else node.value), False

    def _statement(self, ledger: _Ledger) -> list[Node]:
        """(0012,0062) to (0012,0064) and (0028,0303): what was done, in the standard's own codes (PS3.15 E.1.1)."""
        codes = tuple(
            (
                _text(0x00080100, "SH", code),
                _text(0x00080102, "SH", "DCM"),
                _text(0x00080104, "LO", meaning),
            )
            for code, meaning in self.table.codes
        )
        modified = {"shifted": "MODIFIED", "removed": "REMOVED"}[self.table.dates]
        nodes = [
            _text(0x00120062, "CS", "YES"),
            _text(0x00120063, "LO", self.table.method),
            Node(0x00120064, "SQ", items=codes),
            _text(0x00280303, "CS", modified),
        ]
        ledger.ours += [node.value for node in nodes] + [inner.value for item in codes for inner in item]
        return nodes


def open_engine(profile: str) -> Engine:
    """The engine for a profile that comes with the package. Raises `UsageFault` for a name that is none."""
    return Engine(load_profile(profile), standard())


def write_new(path: Path, parts: Sequence[bytes | memoryview]) -> None:
    """A new file, 0600, never over another one and never through a link; gone again if it cannot be written whole."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            for part in parts:
                file.write(part)
    except BaseException:
        path.unlink()
        raise


def _text(tag: int, vr: str, text: str) -> Node:
    return Node(tag, vr, encoding.text_value(vr, [text[:64]]))


def _usual_vr(vrs: tuple[str, ...]) -> str:
    """Of several VRs the one a reader without the other attributes should take: words before bytes, US before SS."""
    return "OW" if "OW" in vrs else vrs[0]


def _mourn(node: Node, ledger: _Ledger) -> None:
    """Remember what a removed or replaced element held, at any depth."""
    if node.items is not None:
        for item in node.items:
            for inner in item:
                _mourn(inner, ledger)
    elif node.vr in TEXT_VRS:
        ledger.gone.extend(node.value.split(b"\\"))
    elif len(node.value) <= _MAX_OPAQUE_TOKEN and _looks_like_text(node.value):
        ledger.gone.append(node.value)


def _looks_like_text(value: bytes) -> bool:
    try:
        return value.rstrip(b"\0").decode().isprintable()
    except UnicodeDecodeError:
        return False
