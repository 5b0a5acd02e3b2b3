"""The class names of exceptions that may be told of a job, and how often a run is told more than a plain word.

What ended a researcher's program is worth telling and dangerous to tell: an exception's text quotes what the program
choked on. So a job may name the *class* of its exception, and only one on this list leaves; every other is `other`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from mediator.errors import Code, HubCode, hub_code, plain_hub_code

# What programs that train on images stumble over: Python's own, then numpy's, pyarrow's, pydicom's, torch's (the
# accelerator's memory), safetensors' and the job library's two. Adding one adds to what can leave, and the threat model
# says how much that is.
NAMES = (
    "AssertionError", "AttributeError", "EOFError", "FileNotFoundError", "FloatingPointError", "ImportError",
    "IndexError", "KeyError", "MemoryError", "ModuleNotFoundError", "NameError", "NotImplementedError", "OSError",
    "OverflowError", "PermissionError", "RecursionError", "RuntimeError", "StopIteration", "TimeoutError", "TypeError",
    "UnboundLocalError", "UnicodeDecodeError", "ValueError", "ZeroDivisionError",
    "LinAlgError", "ArrowInvalid", "InvalidDicomError", "OutOfMemoryError", "SafetensorError",
    "NoReply", "UnsupportedContract",
)  # fmt: skip
OTHER = "other"

# A run that fails this often is mended at home, not here; a hub that asks again and again learns no more from it.
TOLD_PER_RUN = 32


def _code_of(name: str) -> Code:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    return Code(f"raised_{words}")


RAISED: Mapping[str, Code] = {name: _code_of(name) for name in (*NAMES, OTHER)}
"""Class name → code. The keeper's list is the same."""

PLAIN = frozenset(plain_hub_code(code) for code in Code) | {HubCode.INTERNAL}
"""The words that say nothing about how a job's program ended."""


def told(code: Code, already: int) -> HubCode:
    """What the hub hears for `code` in a run that was told `already` exit reasons at this site."""
    return hub_code(code) if already < TOLD_PER_RUN else plain_hub_code(code)
