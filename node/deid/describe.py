"""Profiles told in tables: the docs page is generated from the same rules the engine follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mediator.deid.rules import DEFAULT_RULE, ElementAction, ProfileTable, Rule
from mediator.deid.tables import Element, Standard, tag_text


def describe(table: ProfileTable, standard: Standard) -> str:
    """Markdown: one line per element that stays in any form or goes for a stated reason."""
    lines = [
        f"# De-identification profile `{table.profile}` (version {table.profile_version})",
        "",
        f"Fingerprint `{table.fingerprint}`. Dates are {table.dates}. Whatever is not listed is removed.",
        "",
        "| tag | element | VR | action | rule |",
        "|---|---|---|---|---|",
        *_rows(table, standard),
        *_private_rows(table),
    ]
    return "\n".join(lines) + "\n"


def compare(tables: Sequence[ProfileTable], standard: Standard) -> str:
    """Markdown: what each profile is, then Table E.1-1 and every element a profile names, side by side."""
    names = [table.profile for table in tables]
    lines = [
        f"| | {' | '.join(f'`{name}`' for name in names)} |",
        f"|---|{'---|' * len(names)}",
        _line("version", [str(table.profile_version) for table in tables]),
        _line("pseudonyms of", [table.scope for table in tables]),
        _line("dates", [table.dates for table in tables]),
        _line("(0028,0303)", [table.temporal for table in tables]),
        _line("options of PS3.15 E.3", [", ".join(sorted(table.options)) or "none" for table in tables]),
        _line("(0012,0064) in every file", [", ".join(code for code, _ in table.codes) for table in tables]),
        _line("private elements that may stay", [str(len(table.private)) for table in tables]),
        "",
        f"| tag | element | E.1-1 | {' | '.join(names)} |",
        f"|---|---|---|{'---|' * len(names)}",
        *_compared(tables, standard),
    ]
    return "\n".join(lines) + "\n"


def _line(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def _compared(tables: Sequence[ProfileTable], standard: Standard) -> Iterator[str]:
    named = {
        tag for table in tables for tag, rule in table.rules.items() if rule.source.startswith(f"{table.profile}: ")
    }
    by_name = {tag for tag in named if any(_is_by_name(table, standard.elements[tag]) for table in tables)}
    for tag in sorted(by_name | set(standard.confidentiality)):
        row, element = standard.confidentiality.get(tag), standard.elements.get(tag)
        name = element.keyword if element else f"{row.name if row else ''} (newer than the dictionary)"
        code = " ".join([row.basic, *(f"{key}={value}" for key, value in sorted(row.options.items()))]) if row else ""
        cells = [_action(table.rules.get(tag, DEFAULT_RULE)) for table in tables]
        yield _line(tag_text(tag), [name, code, *cells])


def _is_by_name(table: ProfileTable, element: Element) -> bool:
    """Whether the profile's file says this keyword itself."""
    return table.rule(element.tag).source == f"{table.profile}: {element.keyword}"


def _rows(table: ProfileTable, standard: Standard) -> Iterator[str]:
    for tag, rule in sorted(table.rules.items()):
        element = standard.elements[tag]
        yield f"| {tag_text(tag)} | {element.keyword} | {'/'.join(rule.vrs)} | {_action(rule)} | {rule.source} |"


def _private_rows(table: ProfileTable) -> Iterator[str]:
    for (creator, group, element), rule in sorted(table.private.items()):
        tag = f"({group:04X},xx{element:02X})"
        yield f"| {tag} | private, {creator} | {'/'.join(rule.vrs)} | {_action(rule)} | {rule.source} |"


def _action(rule: Rule) -> str:
    constant = f" `{rule.constant}`" if rule.constant else ""
    return rule.action.value + (constant if rule.action is not ElementAction.RECURSE else "")
