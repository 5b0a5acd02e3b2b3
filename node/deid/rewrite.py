"""Elements through a compiled table, for one patient: what is written, what is lost, what is beyond doubt.

Headers of one series differ in a few elements, so what became of an element's bytes is remembered; for an element
seen before nothing is decided again. What an element lost is entered in the patient's `Residue` when it is first seen.

A *trusted* value is ours (a pseudonym, a constant), a number in its shape, or made of listed terms: a removed word
inside it is chance. A *kept* text is one that stays as it was: there a removed word convicts, however short.

The patient's own names and numbers are no terms. They stand anywhere in a file, behind what they must be taken from and
at any depth: when a file turns out to hold new ones, its header is made once more, and nothing made before counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby

from mediator.deid.coded import CODED, coded_tags
from mediator.deid.identifiers import Identifier, Kind, Opaque, Own
from mediator.deid.mandatory import Mandatory
from mediator.deid.residual import MIN_TOKEN
from mediator.deid.rules import ElementAction, ProfileTable, Rule
from mediator.deid.values import Subject
from node.deid import encoding
from node.deid.chunks import NOTHING, Chunk, joined, placed
from node.deid.date_check import STUDY_DATES, DatesDiffer, Moved, dates_hold, has_dates, study_date, text
from node.deid.element import Made, is_meant_to_stay, make
from node.deid.facts import TEXT_VRS, decode, layout_of
from node.deid.numerals import ASSIGNED, NUMBERS, as_written, numerals
from node.deid.ordinals import NAMED_SEQUENCES, told_apart
from node.deid.reader import LARGE_BYTES, ByteRun, Parsed, Raw, whole_groups
from node.deid.residue import Residue, plain
from node.deid.structure import ElementNode, VrOf, taken_apart

CHARSET = 0x00080005
# DS and IS that `mediator.deid.values` keeps and writes as they stand: numbers and at most one blank, of its lengths.
_DECIMAL = rb"(?![^\\ ]{33})[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?"
_INTEGER = rb"(?![^\\ ]{13})[+-]?\d{1,12}"
_NUMBERS = {vr: re.compile(rb"%b(?:\\%b)* ?" % (one, one)) for vr, one in (("DS", _DECIMAL), ("IS", _INTEGER))}
# A removed binary value is looked for when it is text by its look and no longer than a page.
_MAX_OPAQUE_TOKEN = 1024
# (0008,1110) Referenced Study Sequence: Type 3 with one or more items where it is used (PS3.3 C.7.3.1): gone, not empty
_NEVER_EMPTY = frozenset({0x00081110})
# Values repeat from slice to slice; a study of a thousand slices has some 50,000 different ones of some 50 bytes.
_MEMO_LIMIT = 100_000
_MEMO_BYTES = 1 << 14
_MEMO_ALL_BYTES = 1 << 25
# Items of a large sequence differ in what is long (coordinates), and are written some at a time.
_MEMO_BYTES_OF_LARGE = 128
_SEVERAL_BYTES = 1 << 13
# What is searched for takes memory, too: some 200 bytes a word. A thousand slices lose some ten thousand.
_WORD_BYTES = 200
MAX_LOST_BYTES = 80_000_000
# A year of a patient's files names some dozen people and orders.
MAX_IDENTIFIERS = 10_000
MAX_IDENTIFIER_LETTERS = 1_000_000


class TooMuch(Exception):
    """A patient's files lost or named more than can be searched for: one that made it so cannot be vouched for."""


@dataclass
class _Notes:
    """Collected while one top-level element is rewritten."""

    trusted: list[bytes] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)
    numbers: list[bytes] = field(default_factory=list)
    missed: list[tuple[int, str]] = field(default_factory=list)


class Rewriter:
    """One patient's elements through one table."""

    def __init__(self, table: ProfileTable, mandatory: Mandatory, subject: Subject) -> None:
        self.subject = subject
        self._mandatory = mandatory
        self.residue = Residue()
        self.most_lost: float = MAX_LOST_BYTES
        self._lost = 0
        self._remembered = 0
        self._memo_bytes = _MEMO_BYTES
        self.pardons: dict[tuple[bytes, bytes, bool], bool] = {}  # (an element's bytes, token, unsure): may it be there
        self._table = table
        self._renamed = "", ""
        self._as = subject  # with what is the patient's own
        self._own_numbers: re.Pattern[bytes] | None = None  # those of five digits, as a header has numbers
        self._named: set[Identifier] = set()
        self._fresh: dict[Identifier, None] = {}  # in the order they were met
        self._kept: dict[bytes, bool] = {}  # texts kept as they were: is there a name in one
        self._chunks: dict[tuple[str, bytes, str, str], dict[bytes, Chunk]] = {}
        self._values: dict[tuple[int, str, bytes, bytes, str, bool, tuple[bool, bool], str], Made] = {}
        self._dates: dict[tuple[str, bytes], dict[int, str]] = {}
        self._said: tuple[dict[int, str], str] = {}, ""
        self._little, self._signed = True, False
        self._vr_of: VrOf = lambda tag: "UN"
        self._missed_any = False

    def uid(self, original: str) -> str:
        """The pseudonym of a UID; a file asks for its own several times."""
        if self._renamed[0] != original:
            self._renamed = original, self.subject.pseudonyms.uid(original)
        return self._renamed[1]

    @property
    def own(self) -> Own:
        """The patient's own names and numbers so far."""
        return self._as.own

    def learn(self, identifiers: Iterable[Identifier]) -> None:
        """These are the patient's own, too. Raises `TooMuch`."""
        known = len(self._named)
        self._named.update(identifiers)
        if len(self._named) > known and (
            len(self._named) > MAX_IDENTIFIERS or sum(len(one.text) for one in self._named) > MAX_IDENTIFIER_LETTERS
        ):
            raise TooMuch
        if len(self._named) > known:
            self._as = replace(self._as, own=Own(self._named))
            self._own_numbers = as_written(self.own.numbers)
            self._forget()
            self._kept.clear()
            self.pardons.clear()

    def missed(self, chunks: Iterable[Chunk]) -> tuple[tuple[int, str], ...]:
        """(tag, private creator) of what the profile means to keep of a header and is not in it, as often as it is."""
        if not self._missed_any:
            return ()
        return tuple([one for chunk in chunks if chunk.missed for one in chunk.missed])

    def take_named(self) -> list[Identifier]:
        """What the patient's files were found to name since this was last asked."""
        fresh, self._fresh = list(self._fresh), {}
        return fresh

    def meet(self, parsed: Parsed, *, whole: bool = False) -> None:
        """What a file names is the patient's own: see `take_named`. What stands in its largest sequences takes long to
        read, and comes only if `whole`."""
        charset = _charset_of(parsed)
        for element in parsed.elements:
            tag, vr, raw, _start = element
            if (vr == "SQ" and (whole or len(raw) <= _MEMO_BYTES)) or self._kind(tag, vr) is not None:
                for node in parsed.pieces(element):
                    self._meet(node, charset)

    def _meet(self, node: ElementNode, charset: bytes) -> None:
        if node.items is None:
            if (kind := self._kind(node.tag, node.vr)) is not None:
                self._name(kind, node, charset)
            return
        for item in node.items:
            own = next((inner.value for inner in item if inner.tag == CHARSET), charset)
            for inner in item:
                self._meet(inner, own)

    def names_someone(self, kept: bytes) -> bool:
        """Whether a text that was kept as it stood has a name or number of the patient's own in it."""
        if not self._named:
            return False
        if (answer := self._kept.get(kept)) is None:
            said = kept.decode("utf-8", "replace")
            self._kept[kept] = answer = self.own.name(said) or self.own.is_number(said)
        return answer

    def header(self, parsed: Parsed, ours: Sequence[tuple[int, Chunk]]) -> list[Chunk]:
        """The output's chunks in order; `ours` (tag, chunk), ascending, stand in for what the input has there.

        Raises `TooMuch`, `DatesDiffer`.
        """
        self._forget_some()
        if self._table.dates == "truncated":
            day = self._study_date(parsed)
            if day != self._as.study_date:
                self._as = replace(self._as, study_date=day)
        if not self._named:
            self.meet(parsed)  # what is met later costs this header once more
            self.learn(self._fresh)
        while True:
            found = self._header(parsed, ours)
            if self._fresh.keys() <= self._named:
                return found
            self.learn(self._fresh)

    def _study_date(self, parsed: Parsed) -> str:
        """The date a file's examination is dated by. What a run says of it is read once in a series."""
        said: dict[int, str] = {}
        for run in parsed.runs:
            if run.first > STUDY_DATES[-1]:
                break
            key = parsed.syntax, run.raw
            if (dates := self._dates.get(key)) is None:
                several = (one for one in run.elements if one[0] in STUDY_DATES and one[1] != "SQ")
                dates = {one[0]: text(parsed.node(one)) for one in several}
                if len(run.elements) > 1:  # one alone is one that changes
                    self._dates[key] = dates
            said |= dates
        if said != self._said[0]:
            self._said = said, study_date(said)
        return self._said[1]

    def _header(self, parsed: Parsed, ours: Sequence[tuple[int, Chunk]]) -> list[Chunk]:
        form = parsed.syntax if parsed.implicit or not parsed.little else "explicit"
        self._little, self._vr_of = parsed.little, parsed.vr_of
        self._signed = layout_of(parsed).signed
        form += " signed" * self._signed  # what is remembered of unsigned pixels' files is not theirs
        memo, charset = self._memo(form, b""), b""
        found: list[Chunk] = []
        pending = [(1 << 32, NOTHING), *reversed(ours)]
        for run in whole_groups(parsed.runs) if self._table.private else parsed.runs:
            while pending[-1][0] < run.first:
                found.append(pending.pop()[1])
            if run.first == CHARSET:
                _tag, _vr, raw, start = run.elements[0]
                charset = raw[start:]
                memo = self._memo(form, charset)
            if len(run.raw) > LARGE_BYTES and _is_large_sequence(run):
                found.extend(self._large(parsed, run.elements[0], charset))
                continue
            chunk = memo.get(run.raw) if len(run.raw) <= _MEMO_BYTES else None
            if chunk is None:
                within = [own for own in ours if run.first <= own[0] <= run.last]
                chunk = self._run(parsed, run, charset, within)
                if len(run.raw) <= _MEMO_BYTES:
                    memo[run.raw] = chunk
                    self._remembered += len(run.raw)
            while pending[-1][0] <= run.last:
                pending.pop()
            found.append(chunk)
        found.extend(chunk for _, chunk in reversed(pending))
        return found

    def _run(self, parsed: Parsed, run: ByteRun, charset: bytes, ours: Sequence[tuple[int, Chunk]]) -> Chunk:
        """One chunk for a run, with those of `ours` that belong inside it."""
        if not ours and len(run.elements) == 1:
            element = run.elements[0]
            if self._is_number(element):
                return Chunk(element[2], (element[2][element[3] :],))
            return self._make(parsed, parsed.node(element), charset, "")
        parts = dict(ours)
        for group, elements in groupby(run.elements, key=self._private_group):
            if group:
                parts[group << 16] = self._private(parsed, elements, charset)
                continue
            for element in elements:
                node = parsed.node(element)
                if element[0] in parts:
                    self._lose(node, charset)
                else:
                    parts[element[0]] = self._make(parsed, node, charset, "")
        return joined([chunk for _, chunk in sorted(parts.items())])

    def _private_group(self, element: Raw) -> int:
        """The group of a private element of which something may stay; 0 for any other."""
        group = element[0] >> 16
        return group if group & 1 and self._table.private else 0

    def _large(self, parsed: Parsed, element: Raw, charset: bytes) -> Iterable[Chunk]:
        """A sequence of megabytes, item by item: its header, then what is written of a few items at a time."""
        if self._table.rule(element[0]).action is not ElementAction.RECURSE:
            for piece in parsed.pieces(element):
                self._lose(piece, charset)
            return [self._make(parsed, ElementNode(element[0], "SQ", items=()), charset, "")]
        chunks: list[Chunk] = []
        several: list[Chunk] = []
        size, self._memo_bytes = 0, _MEMO_BYTES_OF_LARGE
        for piece in parsed.pieces(element):
            made = self._make(parsed, piece, charset, "")
            inside = made.raw[8 if parsed.implicit else 12 :]
            trusted = tuple(placed(inside, value, _MEMO_BYTES_OF_LARGE) for value in made.trusted)
            several.append(Chunk(inside, trusted, made.kept, made.numbers, made.missed))
            size += len(inside)
            if size > _SEVERAL_BYTES:
                chunks.append(joined(several))
                several, size = [], 0
                self._forget_some()
        self._memo_bytes = _MEMO_BYTES
        chunks.append(joined(several))
        length = sum(len(chunk.raw) for chunk in chunks)
        return [Chunk(encoding.sequence_head(element[0], length, parsed.implicit, parsed.little)), *chunks]

    def _is_number(self, element: Raw) -> bool:
        """Whether an element is kept as it stands: numbers as text, written as we would. Most of what changes is."""
        tag, vr, raw, start = element
        # not from an element of VR UN, and of even length
        return start == 8 and len(raw) % 2 == 0 and self._is_kept_number(self._table.rule(tag), vr, raw, start)

    def _is_kept_number(self, rule: Rule, vr: str, raw: bytes, start: int = 0) -> bool:
        shape = _NUMBERS.get(vr)
        return (
            shape is not None
            and rule.action is ElementAction.KEEP
            and vr in rule.vrs
            and (rule.vm_max is None or raw.count(b"\\", start) < rule.vm_max)
            and shape.fullmatch(raw, start) is not None
            and (self._own_numbers is None or self._own_numbers.fullmatch(raw, start) is None)
        )

    def _memo(self, form: str, charset: bytes, creator: str = "") -> dict[bytes, Chunk]:
        return self._chunks.setdefault((form, charset, creator, self._as.study_date), {})

    def _forget_some(self) -> None:
        many = len(self._values) + sum(map(len, self._chunks.values())) > _MEMO_LIMIT
        if many or self._remembered > _MEMO_ALL_BYTES:
            self._forget()

    def _forget(self) -> None:
        self._chunks.clear()
        self._values.clear()
        self._dates.clear()
        self._remembered = 0

    def _private(self, parsed: Parsed, elements: Iterable[Raw], charset: bytes) -> Chunk:
        """The private elements of one group. A creator stands before its block only if something of that stays."""
        found: list[Chunk] = []
        creators: dict[int, tuple[str, int, Chunk]] = {}
        for element in elements:
            tag, _vr, raw, _start = element
            node = parsed.node(element)
            if 0x10 <= tag & 0xFFFF <= 0xFF:
                self._lose(node)
                creators[block_of(tag)] = (text(node), len(found), self._encode(parsed, node))
                found.append(NOTHING)
                continue
            name, place, reservation = creators.get(tag & 0xFFFFFF00, ("", 0, NOTHING))
            memo = self._memo(parsed.syntax, charset, name or "?")
            chunk = memo.get(raw)
            if chunk is None:
                chunk = self._make(parsed, node, charset, name)
                if len(raw) <= _MEMO_BYTES:
                    memo[raw] = chunk
                    self._remembered += len(raw)
            if chunk.raw:
                found[place] = reservation
            found.append(chunk)
        return joined(found)

    def _make(self, parsed: Parsed, node: ElementNode, charset: bytes, creator: str) -> Chunk:
        notes = _Notes()
        made = self._element(node, charset, creator, notes)
        self._missed_any |= bool(notes.missed)
        if made is None:
            return Chunk(b"", missed=tuple(notes.missed)) if notes.missed else NOTHING
        raw = encoding.dataset((made,), implicit=parsed.implicit, little=parsed.little)
        if has_dates(made):
            moved = Moved(self.subject.shift_days, self._as.study_date)
            again = parsed.node((made.tag, made.vr, raw, 0 if made.items is not None else len(raw) - len(made.value)))
            if not dates_hold(node, again, self._table, moved, creator, parsed.vr_of):
                raise DatesDiffer
        return Chunk(raw, tuple(notes.trusted), tuple(notes.kept), tuple(notes.numbers), tuple(notes.missed))

    @staticmethod
    def _encode(parsed: Parsed, node: ElementNode) -> Chunk:
        return Chunk(encoding.dataset((node,), implicit=parsed.implicit, little=parsed.little), (node.value,))

    def _items(self, nodes: Sequence[ElementNode], charset: bytes, notes: _Notes) -> tuple[ElementNode, ...]:
        """The elements of one item."""
        charset = next((node.value for node in nodes if node.tag == CHARSET), charset)
        coded = coded_in(nodes, charset, self._table)
        kept: list[ElementNode] = []
        creators: dict[int, ElementNode] = {}
        for node in nodes:
            if node.tag >> 16 & 1 and 0x10 <= node.tag & 0xFFFF <= 0xFF:
                self._lose(node)
                creators[block_of(node.tag)] = node
                continue
            reserved = creators.get(node.tag & 0xFFFFFF00) if node.tag >> 16 & 1 else None
            creator = text(reserved) if reserved is not None else ""
            made = self._element(node, charset, creator, notes, coded=node.tag in coded)
            if made is not None:
                if reserved is not None and reserved not in kept:
                    kept.append(reserved)
                    notes.trusted.append(reserved.value)
                kept.append(made)
        return tuple(sorted(kept, key=lambda node: node.tag))

    def made(self, node: ElementNode, charset: bytes, creator: str, *, coded: bool = False) -> ElementNode | None:
        """What is written for one element, in a block that `creator` reserved; None: nothing.

        `coded`: the items's code, scheme and meaning are the standard's own.
        """
        return self._element(node, charset, creator, _Notes(), coded=coded)

    def _element(
        self, node: ElementNode, charset: bytes, creator: str, notes: _Notes, *, coded: bool = False
    ) -> ElementNode | None:
        rule = self._table.private_rule(creator, node.tag) if node.tag >> 16 & 1 else self._table.rule(node.tag)
        if node.vr == "UN" and rule.vrs == ("SQ",) and self._little:
            node = taken_apart(node, self._vr_of)
        if node.items is not None:
            if rule.action is ElementAction.RECURSE:
                items = tuple(self._items(item, charset, notes) for item in node.items)
                items, names = told_apart(node.tag, node.items, items)
                notes.trusted += names
                return ElementNode(node.tag, "SQ", items=items)
            self._lose(node)
            if is_meant_to_stay(rule) and node.items:
                notes.missed.append((node.tag, creator))
            empty = rule.action is ElementAction.EMPTY and "SQ" in rule.vrs and node.tag not in _NEVER_EMPTY
            return ElementNode(node.tag, "SQ", items=()) if empty else None
        if rule.action is ElementAction.REMOVE and not self._mandatory.stands_in(node.tag):
            self._lose(node, charset)
            return None
        if (kind := self._kind(node.tag, node.vr)) is not None:
            self._name(kind, node, charset)
        form = (self._little, self._signed)
        key = (node.tag, node.vr, node.value, charset, creator, coded, form, self._as.study_date)
        found = self._values.get(key)
        if found is None:
            public = not node.tag >> 16 & 1  # a maker's own must be a number that could be measured
            if public and len(node.value) % 2 == 0 and self._is_kept_number(rule, node.vr, node.value):
                found = Made(node)
            else:
                subject = self.subject if coded else self._as
                found = make(rule, node, charset, self._table, self._mandatory, subject, *form)
            if node.tag in ASSIGNED and found.node is not None and self.own.is_number(text(found.node)):
                found = Made(ElementNode(node.tag, "IS", b"0 "))
            if len(node.value) <= self._memo_bytes:
                self._values[key] = found
                self._remembered += len(node.value)
        made = found.node
        if made is None or (made.value != node.value and not found.read):
            self._lose(node, charset)
        if found.missed:
            notes.missed.append((node.tag, creator))
        if made is not None and found.trusted:
            notes.trusted.append(made.value)
        elif made is not None and made.vr in TEXT_VRS:
            notes.kept.extend(plain(value) for value in made.value.split(b"\\"))
        elif made is not None:
            notes.numbers.append(made.value)
        if made is not None and self._own_numbers is not None:
            notes.kept += [one.encode() for one in numerals(made) if self.own.is_number(one)]
        return made

    def _kind(self, tag: int, vr: str) -> Kind | None:
        """Whether an element names a person, of this hospital's or of any maker's making."""
        return self._table.identifying.get(tag) or ("name" if vr == "PN" else None)

    def _name(self, kind: Kind, node: ElementNode, charset: bytes) -> None:
        """What an element names is the patient's own. Its bytes may be in another character set than they say."""
        vr = node.vr if node.vr in TEXT_VRS else "PN" if kind == "name" else "LO"
        said = set(decode(node.value, vr, charset))
        if not node.value.isascii():
            with suppress(UnicodeDecodeError):
                said.update(node.value.decode().split("\\"))
            if any("\ufffd" in one for one in said):
                said.update(decode(node.value, vr, b""))
        for one in filter(None, (one.strip(" \0") for one in said)):
            identifier = Identifier(kind, one)
            if identifier not in self._named:
                self._fresh[identifier] = None

    def _lose(self, node: ElementNode, charset: bytes = b"") -> None:
        """Remember what a removed or replaced element held, at any depth."""
        if node.items is None and (kind := self._kind(node.tag, node.vr)) is not None:
            self._name(kind, node, charset)
        if node.items is not None:
            for item in node.items:
                own = next((inner.value for inner in item if inner.tag == CHARSET), charset)
                for inner in item:
                    self._lose(inner, own)
        elif node.vr in ("DA", "TM", "DT") or node.vr in NUMBERS:
            return
        elif node.vr in TEXT_VRS:
            values = node.value.split(b"\\")
            if not node.value.isascii() or b"\x1b" in node.value:
                values += [text.encode() for text in decode(node.value, node.vr, charset)]
            self._enter(values, len(node.value))
        elif len(node.value) <= _MAX_OPAQUE_TOKEN and _looks_like_text(node.value):
            self._enter([Opaque(node.value)], len(node.value))

    def _enter(self, values: Sequence[bytes], length: int) -> None:
        """Raises `TooMuch`; what was entered before stays."""
        if length // (MIN_TOKEN + 1) * _WORD_BYTES > self.most_lost:
            raise TooMuch  # were all of its words new and as short as they come
        self._lost += sum(len(token) + _WORD_BYTES for token in self.residue.lost(values))
        if self._lost > self.most_lost:
            raise TooMuch


def _is_large_sequence(run: ByteRun) -> bool:
    """Whether a run is one sequence of the standard's, of which no two items must be told apart."""
    public = not run.first >> 16 & 1
    return public and len(run.elements) == 1 and run.elements[0][1] == "SQ" and run.first not in NAMED_SEQUENCES


def coded_in(nodes: Sequence[ElementNode], charset: bytes, table: ProfileTable) -> frozenset[int]:
    """The elements of an item that together are a code of the standard with the text it gives it."""
    said = {node.tag: node for node in nodes if node.tag in CODED and node.items is None}
    if len(said) < 2:
        return frozenset()
    return coded_tags({tag: decode(node.value, node.vr, charset)[0] for tag, node in said.items()}, table)


def _charset_of(parsed: Parsed) -> bytes:
    return next((raw[start:] for tag, vr, raw, start in parsed.elements if tag == CHARSET and vr != "SQ"), b"")


def block_of(creator: int) -> int:
    """The first tag of the block that the private creator with this tag reserves (PS3.5 7.8.1)."""
    return creator & 0xFFFF0000 | (creator & 0xFF) << 8


def _looks_like_text(value: bytes) -> bool:
    try:
        return value.rstrip(b"\0").decode().isprintable()
    except UnicodeDecodeError:
        return False
