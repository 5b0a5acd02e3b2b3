"""What will happen to a file, element by element, and which rule says so. Nothing is written, and no key is needed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mediator.deid.rules import Action, Rule, Table
from mediator.deid.screening import Exclusion, sort
from mediator.deid.tables import tag_text
from mediator.errors import UsageFault
from node.deid.engine import Engine
from node.deid.facts import TEXT_VRS, decode
from node.deid.profiles import standard
from node.deid.rewrite import block_of
from node.deid.structure import Node

_CHARSET = 0x00080005
# Written by us whatever the file says (PS3.15 E.1.1).
_STATED = frozenset({0x00120062, 0x00120063, 0x00120064, 0x00280303})
_LONGEST_SHOWN = 64


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


def explain_file(path: Path, table: Table, *, values: bool = False) -> tuple[str, list[Line]]:
    """(what becomes of the whole file, a line for each element). Raises `UsageFault` for what cannot be opened."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UsageFault(f"the file cannot be opened: {error.strerror}") from None
    try:
        source = Engine(table, standard()).open(handle)
        if isinstance(source, Exclusion):
            return f"refused: {source.value}", []
        sorting = sort(source.facts, source.finding)
        why = ", ".join(reason.value for reason in sorting.reasons)
        verdict = {"pass": "passes", "review": "to review", "refuse": "refused"}[sorting.place]
        lines = [
            Line(0, "", "", "preamble", "empty", "always: zeros"),
            Line(0, "(0002,xxxx)", "", "file meta", "rebuilt", "always: no AE titles, no private information"),
            *_lines(source.parsed.nodes, table, b"", 0, values),
        ]
        if source.parsed.pixels is not None:
            pixels = source.parsed.pixels
            rule = "always: byte for byte, unless text in it is blacked out"
            lines.append(Line(0, tag_text(pixels.tag), pixels.vr, "pixel data", "copy", rule))
            lines.append(Line(0, "", "", "whatever follows the pixels", "remove", "always"))
        return f"{verdict}{': ' if why else ''}{why}", lines
    finally:
        os.close(handle)


def _lines(nodes: Sequence[Node], table: Table, charset: bytes, depth: int, values: bool) -> Iterator[Line]:
    charset = next((node.value for node in nodes if node.tag == _CHARSET), charset)
    creators: dict[int, str] = {}
    for node in nodes:
        rule, name = _rule(node, table, creators)
        if node.tag in _STATED and depth == 0:
            rule = Rule(Action.CONSTANT, "PS3.15 E.1.1: says what was done")
        action = "written by us" if rule.action is Action.CONSTANT else rule.action.value
        shown = _value(node, charset) if values else ""
        yield Line(depth, tag_text(node.tag), node.vr, name, action, rule.source, shown)
        if node.items is not None and rule.action is Action.RECURSE:
            for item in node.items:
                yield from _lines(item, table, charset, depth + 1, values)


def _rule(node: Node, table: Table, creators: dict[int, str]) -> tuple[Rule, str]:
    if node.tag >> 16 & 1:
        if 0x10 <= node.tag & 0xFFFF <= 0xFF and node.items is None:
            creators[block_of(node.tag)] = node.value.decode("latin-1").strip(" \0")
            return Rule(
                Action.REMOVE, "private creator: stays only before an element of its block that stays"
            ), "creator"
        # what a private block is called may be text somebody typed: only names of the safe list are ever shown
        return table.private_rule(creators.get(node.tag & 0xFFFFFF00, ""), node.tag), "private"
    element = standard().elements.get(node.tag)
    return table.rule(node.tag), element.keyword if element else "unknown"


def _value(node: Node, charset: bytes) -> str:
    if node.items is not None:
        return f"{len(node.items)} items"
    if node.vr in TEXT_VRS:
        text = "\\".join(decode(node.value, node.vr, charset))
        return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"
    return f"{len(node.value)} bytes"
