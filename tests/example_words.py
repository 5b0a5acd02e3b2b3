"""What an example configuration says of each key: the comment above it and the one after its value."""

from __future__ import annotations

import re
from collections.abc import Mapping

_KEY = re.compile(r"^(?:# )?([a-z_]+) = (.*)$")
_SECTION = re.compile(r"^(?:# )?\[\[?([a-z_.]+)\]\]?$")


def words(text: str) -> Mapping[str, str]:
    """By dotted key. A key that is commented out is one of them; a block of comment that an empty line follows speaks
    of no key by itself."""
    found: dict[str, str] = {}
    section, block = "", []
    for line in text.splitlines():
        if header := _SECTION.match(line):
            section, block = header[1], []
        elif key := _KEY.match(line):
            after = re.search(r"\s# (.*)$", key[2])
            said = " ".join([*block, after[1] if after else ""])
            found[f"{section}.{key[1]}".strip(".")] = " ".join(said.replace("<- change", " ").split())
            block = []
        else:
            block = [*block, line[2:]] if line.startswith("# ") else []
    return found
