"""Finished files searched once more: for what only later files of the same patient lost (the residual check, whole).

A file is searched when it is written, for all that was lost until then. What the files after it lose is searched for
at the end, in every byte outside the pixel stream as it then stands on disk, and in its name.

    searcher = Searcher(table, mandatory, vr_of, kept_words(table))
    for path, lost in reversed(written):      # (finished file, what it was the first to lose)
        suspect = searcher.finds(path)        # holds something of the files after it
        searcher.lost(lost)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from mediator.deid.identifiers import NOBODYS, Identifier, Lost, Own
from mediator.deid.mandatory import DUMMY, Mandatory
from mediator.deid.rules import ElementAction, ProfileTable, Rule
from mediator.deid.values import is_standards_own
from node.deid.facts import decode
from node.deid.numerals import numerals
from node.deid.ordinals import is_standing_in, without_ordinal
from node.deid.reader import LARGE_BYTES, Parsed, Reader
from node.deid.residue import Residue, plain
from node.deid.rewrite import coded_in
from node.deid.stream import FileStream
from node.deid.structure import ElementNode, Unreadable, VrOf

# VRs whose values have no shape: kept as they are, they may be anybody's words
WORDS = frozenset(["AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"])
_CHARSET = b"ISO_IR 192"  # what every profile of ours writes; all it cleans is ASCII
_OURS = frozenset({ElementAction.CONSTANT, ElementAction.SITE, ElementAction.SITE_HASH})
_STANDING_IN = frozenset({DUMMY, "OTHER", "ANONYMIZED", "ANONYMOUS", "Anonymous", "REMOVED", "99REMOVED", "removed"})
_STATED = frozenset({0x00120062, 0x00120063, 0x00120064, 0x00280303})


def kept_words(table: ProfileTable) -> frozenset[int]:
    """The elements whose words a profile keeps as they are."""
    rules = table.rules.items()
    return frozenset(tag for tag, rule in rules if rule.action is ElementAction.KEEP and WORDS & set(rule.vrs))


def is_reservation(table: ProfileTable, tag: int, text: str) -> bool:
    """Whether an element reserves a block for a creator of the safe list: a maker's name, whoever is called so."""
    reserves = bool(tag >> 16 & 1) and 0x10 <= tag & 0xFFFF <= 0xFF
    return reserves and any(text.strip(" \0") == creator for creator, _group, _element in table.private)


class Searcher:
    """Lost values, and the files they are looked for in."""

    def __init__(self, table: ProfileTable, mandatory: Mandatory, vr_of: VrOf, kept: frozenset[int]) -> None:
        """`kept`: what `kept_words` says of the table."""
        self._kept = kept
        self._table = table
        self._mandatory = mandatory
        self._reader = Reader(vr_of)
        self._residue = Residue()
        self._own = NOBODYS
        self._named: dict[tuple[int, str, bytes, bool], bool] = {}

    def lost(self, values: Iterable[Lost]) -> None:
        """Look for these from now on, too."""
        several = list(values)
        self._residue.lost(value for value in several if isinstance(value, bytes))
        if named := {value for value in several if isinstance(value, Identifier)} - self._own.identifiers:
            self._own = Own(self._own.identifiers | named)
            self._named.clear()

    def finds(self, path: Path, name: str = "") -> bool:
        """Whether a finished file holds one of the values, by chance or not; `name`, where it is still to be moved to.

        A file that cannot be taken apart any more counts as one that does. Short values convict as whole values only,
        where a profile keeps words as they are; names and numbers wherever a text is no term of the standard's own.
        """
        if not self._residue.count and not self._own:
            return False
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            stream = FileStream(handle)
            try:
                parsed = self._reader.parse(stream)
            except Unreadable:
                return True
            start, end = (parsed.pixels.start, parsed.pixels.end) if parsed.pixels else (stream.size, stream.size)
            around = b"\0".join((stream.read(0, start), stream.read(end, stream.size - end), os.fsencode(name)))
            found = self._residue.count and next(self._residue.search(around), None) is not None
            return found or self._keeps_short(parsed) or (bool(self._own) and self._names_in(parsed))
        finally:
            os.close(handle)

    def _keeps_short(self, parsed: Parsed) -> bool:
        short = self._residue.whole
        if not self._kept or not short:
            return False
        nodes = _all(node for element in parsed.elements for node in parsed.pieces(element))
        values = (value for node in nodes if node.tag in self._kept for value in node.value.split(b"\\"))
        return any(plain(value) in short for value in values)

    def _names_in(self, parsed: Parsed) -> bool:
        small = [element for element in parsed.elements if len(element[2]) <= LARGE_BYTES]
        if self._names([parsed.node(element) for element in small]):
            return True
        large = (element for element in parsed.elements if len(element[2]) > LARGE_BYTES)
        return any(self._names((piece,)) for element in large for piece in parsed.pieces(element))

    def _names(self, nodes: Sequence[ElementNode]) -> bool:
        """Whether a text at any depth has a name or number of the patient's own in it."""
        coded = coded_in(nodes, _CHARSET, self._table)
        for node in nodes:
            if node.items is not None:
                if any(self._names(item) for item in node.items):
                    return True
            elif node.vr in WORDS:
                if self._is_named(node, coded=node.tag in coded):
                    return True
            elif self._own.numbers and any(map(self._own.is_number, numerals(node))):
                return True
        return False

    def _is_named(self, node: ElementNode, *, coded: bool) -> bool:
        key = (node.tag, node.vr, node.value, coded)
        if (answer := self._named.get(key)) is None:
            rule = self._table.rule(node.tag)
            values = decode(node.value, node.vr, _CHARSET)
            name = partial(self._own.name, cleaned=rule.action is not ElementAction.KEEP)
            ours = coded or is_reservation(self._table, node.tag, values[0])
            self._named[key] = answer = not ours and still_names(rule, node.tag, values, name, self._mandatory)
        return answer


def still_names(rule: Rule, tag: int, values: Sequence[str], name: Callable[[str], bool], mandatory: Mandatory) -> bool:
    """Whether the text of an element that was written names somebody (`name` says so of a text).

    What is ours, and a term of the standard's own for the attribute, names nobody.
    """
    if rule.action in _OURS or tag in _STATED:
        return False
    texts = [without_ordinal(tag, one) for one in values if one not in _STANDING_IN and not is_standing_in(tag, one)]
    free = [text for text in texts if text and not (is_standards_own(rule, (text,)) or mandatory.lists(tag, text))]
    return any(map(name, free))


def _all(nodes: Iterable[ElementNode]) -> Iterator[ElementNode]:
    """The elements at any depth."""
    for node in nodes:
        yield node
        for item in node.items or ():
            yield from _all(item)
