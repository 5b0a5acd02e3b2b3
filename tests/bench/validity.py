"""What dciodvfy (Debian's dicom3tools) says of a file that it did not say of the one it was made from."""

from __future__ import annotations

import collections
import re
import subprocess
from pathlib import Path

DCIODVFY = "/usr/bin/dciodvfy"


def errors(path: Path) -> collections.Counter[str]:
    said = subprocess.run([DCIODVFY, "-new", path], capture_output=True, check=False).stderr.decode("latin-1")
    lines = [line for line in said.splitlines() if line.startswith("Error")]
    return collections.Counter(re.sub(r"\[\d+\]|= ?.*$|Module.*", "", line) for line in lines)


def new_errors(before: Path, after: Path) -> set[str]:
    """By kind; nothing where it cannot read the first one (it knows no deflated dataset)."""
    said = errors(before)
    return set() if any("dataset read failed" in line for line in said) else set(errors(after) - said)
