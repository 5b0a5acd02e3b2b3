"""The newest revision of a folder of migrations, known without loading one of them."""

from __future__ import annotations

import re
from pathlib import Path

_NUMBER = re.compile(r"m?(\d{4})_\w+\.py")


def newest(migrations: Path) -> str:
    """A migration's file is named for its number."""
    return max(found[1] for each in (migrations / "versions").iterdir() if (found := _NUMBER.fullmatch(each.name)))
