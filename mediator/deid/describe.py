"""A profile told in a table: the docs page is generated from the same rules the engine follows."""

from __future__ import annotations

from collections.abc import Iterator

from mediator.deid.rules import Action, Table
from mediator.deid.tables import Standard, tag_text


def describe(table: Table, standard: Standard) -> str:
    """Markdown: one line per element that stays in any form or goes for a stated reason."""
    lines = [
        f"# De-identification profile `{table.profile}` (version {table.profile_version})",
        "",
        f"Fingerprint `{table.fingerprint}`. Dates are {table.dates}. Whatever is not listed is removed.",
        "",
        "| tag | element | VR | action | rule |",
        "|---|---|---|---|---|",
        *_rows(table, standard),
    ]
    return "\n".join(lines) + "\n"


def _rows(table: Table, standard: Standard) -> Iterator[str]:
    for tag, rule in sorted(table.rules.items()):
        element = standard.elements[tag]
        action = f"{rule.action} `{rule.constant}`" if rule.action is Action.CONSTANT else rule.action.value
        yield f"| {tag_text(tag)} | {element.keyword} | {'/'.join(rule.vrs)} | {action} | {rule.source} |"
