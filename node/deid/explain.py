"""What will happen to a file, element by element, and which rule says so. Nothing is written, and no key is needed.

The engine's own rewriter is asked, so what is told is what would be done: where a value may not stay although a rule
keeps its element, where something stands in for what may not be missing (Type 1 and 2), what is written unasked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mediator.deid.pseudonyms import SITE_KEY_BYTES, Pseudonyms
from mediator.deid.rules import ElementAction, ProfileTable, Rule
from mediator.deid.screening import Exclusion, sort
from mediator.deid.tables import tag_text
from mediator.deid.values import Subject
from mediator.errors import UsageFault
from node.deid.date_check import DatesDiffer
from node.deid.engine import ProfileEngine
from node.deid.facts import TEXT_VRS, decode
from node.deid.pixels import needs_check
from node.deid.profiles import standard
from node.deid.rewrite import Rewriter, TooMuch, block_of, coded_in
from node.deid.structure import ElementNode

_CHARSET = 0x00080005
# Written by us whatever the file says (PS3.15 E.1.1).
_STATED = {0x00120062: "CS", 0x00120063: "LO", 0x00120064: "SQ", 0x00280303: "CS"}
_ISSUER = 0x00100021
_LONGEST_SHOWN = 64
_DUMMY_DATE = "19000101000000"


@dataclass(frozen=True)
class Line:
    """One element: where it stands, what becomes of it, by which rule. `value` is the patient's."""

    depth: int
    tag: str
    vr: str
    element: str
    action: str
    rule: str
    value: str = field(default="", repr=False)

    def plain(self, values: bool) -> dict[str, Any]:
        """A row of the table; the value only where it was asked for."""
        row = {"tag": "> " * self.depth + self.tag, "vr": self.vr, "element": self.element}
        row |= {"action": self.action, "rule": self.rule}
        return row | ({"value": self.value} if values else {})

    def text(self, values: bool) -> str:
        """One line for a person."""
        where = f"{'> ' * self.depth}{self.tag:<11} {self.vr:<2} {self.element}"
        return f"{where:<56} {self.action:<13} {self.rule}" + (f"   [{self.value}]" if values and self.value else "")


def explain_file(path: Path, table: ProfileTable, *, values: bool = False) -> tuple[str, list[Line]]:
    """(what becomes of the whole file, a line for each element). Raises `UsageFault` for what cannot be opened."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UsageFault(f"the file cannot be opened: {error.strerror}") from None
    try:
        engine = ProfileEngine(table, standard())
        source = engine.open(handle)
        if isinstance(source, Exclusion):
            return f"refused: {source.value}", []
        sorting = sort(source.facts, source.finding)
        why = ", ".join(reason.value for reason in sorting.reasons)
        verdict = {"pass": "passes", "review": "to review", "refuse": "refused"}[sorting.place]
        # no value of these is shown: what becomes of an element does not depend on the key
        rewriter = engine.rewriter_of(Subject(Pseudonyms(bytes(SITE_KEY_BYTES), "explain"), "-", 1, "-"))
        with suppress(DatesDiffer, TooMuch):
            rewriter.header(source.parsed, ())  # what the file names is no term in it, wherever it stands
        lines = [
            Line(0, "", "", "preamble", "empty", "always: zeros"),
            Line(0, "(0002,xxxx)", "", "file meta", "rebuilt", "always: no AE titles, no private information"),
            *_with_ours(list(_Explainer(table, rewriter, values).lines(source.parsed.nodes, b"", 0)), table),
        ]
        if source.parsed.pixels is not None:
            pixels = source.parsed.pixels
            rule = "always: byte for byte"
            if needs_check(source.facts, believe_no=table.look_at == "unless-no"):
                rule += ", after it was looked at: text in it is blacked out, or the file goes to review"
            lines.append(Line(0, tag_text(pixels.tag), pixels.vr, "pixel data", "copy", rule))
            lines.append(Line(0, "", "", "whatever follows the pixels", "remove", "always"))
        return f"{verdict}{': ' if why else ''}{why}", lines
    finally:
        os.close(handle)


def _with_ours(lines: list[Line], table: ProfileTable) -> list[Line]:
    """What is written although the file does not have it, in its place."""
    ours = dict(_STATED)
    if table.rule(_ISSUER).action is ElementAction.SITE:
        ours[_ISSUER] = "LO"
    there = {line.tag for line in lines if line.depth == 0}
    for tag, vr in sorted(ours.items()):
        if tag_text(tag) not in there:
            name, source = standard().elements[tag].keyword, _said(tag, table).source
            place = next(
                (n for n, line in enumerate(lines) if line.depth == 0 and line.tag > tag_text(tag)), len(lines)
            )
            lines.insert(place, Line(0, tag_text(tag), vr, name, "written by us", source))
    return lines


def _said(tag: int, table: ProfileTable) -> Rule:
    return table.rule(tag) if tag == _ISSUER else Rule(ElementAction.CONSTANT, "PS3.15 E.1.1: says what was done")


@dataclass(frozen=True)
class _Explainer:
    table: ProfileTable
    rewriter: Rewriter
    values: bool

    def lines(self, nodes: Sequence[ElementNode], charset: bytes, depth: int) -> Iterator[Line]:
        """A line for each element, those of a sequence that stays below it."""
        charset = next((node.value for node in nodes if node.tag == _CHARSET), charset)
        creators: dict[int, str] = {}
        coded = coded_in(nodes, charset, self.table) if depth else frozenset()
        for node in nodes:
            rule, name = _rule(node, self.table, creators)
            if node.tag in _STATED and depth == 0:
                action, source = "written by us", _said(node.tag, self.table).source
            elif name == "creator":
                action, source = rule.action.value, rule.source
            else:
                creator = creators.get(node.tag & 0xFFFFFF00, "") if node.tag >> 16 & 1 else ""
                made = self.rewriter.made(node, charset, creator, coded=node.tag in coded)
                action, source = _effect(rule, node, made, charset)
            shown = _value(node, charset) if self.values else ""
            yield Line(depth, tag_text(node.tag), node.vr, name, action, source, shown)
            if node.items is not None and action == ElementAction.RECURSE.value:
                for item in node.items:
                    yield from self.lines(item, charset, depth + 1)


def _effect(rule: Rule, node: ElementNode, made: ElementNode | None, charset: bytes) -> tuple[str, str]:
    """What really becomes of an element, and why when that is not simply its rule."""
    intended = rule.action
    if made is None:
        why = "" if intended is ElementAction.REMOVE else "; nothing of it may stay"
        return ElementAction.REMOVE.value, rule.source + why
    if made.items is not None:
        return (ElementAction.RECURSE if intended is ElementAction.RECURSE else ElementAction.EMPTY).value, rule.source
    before, after = _words(node, charset), _words(made, b"ISO_IR 192")
    if not made.value.strip(b" \0"):
        as_meant = intended is ElementAction.EMPTY or not node.value.strip(b" \0")
        return ElementAction.EMPTY.value, rule.source + ("" if as_meant else "; its value may not stay")
    if intended is ElementAction.CONSTANT:
        return "written by us", rule.source
    if intended in (ElementAction.REMOVE, ElementAction.EMPTY) and after == before:
        return ElementAction.KEEP.value, f"PS3.3: one of the values it lists; without that, {rule.source}"
    if intended in (
        ElementAction.REMOVE,
        ElementAction.EMPTY,
        ElementAction.CLEAN,
        ElementAction.SHIFT_DATE,
        ElementAction.TRUNCATE_DATE,
    ):
        if intended is ElementAction.CLEAN and set(after) <= set(before) | {"OTHER"}:
            return intended.value, rule.source
        if intended not in (ElementAction.SHIFT_DATE, ElementAction.TRUNCATE_DATE) or after == [_DUMMY_DATE]:
            return ElementAction.DUMMY.value, f"PS3.5 7.4: may not be missing or empty; without that, {rule.source}"
    return intended.value, rule.source


def _words(node: ElementNode, charset: bytes) -> list[str]:
    return " ".join(decode(node.value, node.vr, charset)).split() if node.vr in TEXT_VRS else []


def _rule(node: ElementNode, table: ProfileTable, creators: dict[int, str]) -> tuple[Rule, str]:
    if node.tag >> 16 & 1:
        if 0x10 <= node.tag & 0xFFFF <= 0xFF and node.items is None:
            creators[block_of(node.tag)] = node.value.decode("latin-1").strip(" \0")
            return Rule(
                ElementAction.REMOVE, "private creator: stays only before an element of its block that stays"
            ), "creator"
        # what a private block is called may be text somebody typed: only names of the safe list are ever shown
        return table.private_rule(creators.get(node.tag & 0xFFFFFF00, ""), node.tag), "private"
    element = standard().elements.get(node.tag)
    return table.rule(node.tag), element.keyword if element else "unknown"


def _value(node: ElementNode, charset: bytes) -> str:
    if node.items is not None:
        return f"{len(node.items)} items"
    if node.vr in TEXT_VRS:
        text = "\\".join(decode(node.value, node.vr, charset))
        return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"
    return f"{len(node.value)} bytes"
