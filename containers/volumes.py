"""`/out` seen from the host: what the keeper says of it, parsed as if the job itself had written it.

The keeper is ours, but it handles a hostile job's files; whatever is odd in its words is a `contract_violation` that
names the rule and nothing else.
"""

from __future__ import annotations

import json
import re
import struct

from mediator.errors import Code, Denied, Reason
from mediator.exits import OTHER, RAISED
from mediator.ports import JobEvent
from mediator.types import OutputFile, Resources

KEEPER = ["python3", "-I", "/opt/cloister-sentinel/keeper.py"]
MAGIC = b"CLO1"
FRAME = struct.Struct(">cHQ")
# magic, and a frame with the longest name for each of 256 files; a job that leaves more breaks the contract
FRAMING_BYTES = 16_384
NAMES = frozenset({"checkpoint", "metrics.json", "model.safetensors"})
# what an analysis may leave, `outputs.json` among it
TABLE = re.compile(r"[a-z][a-z0-9_]{0,39}\.(csv|json)")
RULES = {
    "missing": "the task's folder is missing",
    "not_a_folder": "the task's folder is not a folder",
    "too_many_files": "more files than the permit's limit",
    "unknown_name": "a file that the contract does not name",
    "not_a_regular_file": "something that is not a regular file",
    "hard_link": "a file with more than one name",
    "too_large": "more bytes than the permit's limit",
    "unreadable": "a file that cannot be read",
}
CODES = {rule: Code(f"contract_{rule}") for rule in RULES}
LINE_BYTES = 200
MAX_TASK = 999_999


def copy_program(task: int, limits: Resources) -> list[str]:
    return [*KEEPER, "copy", str(task), str(limits.out_bytes), str(limits.out_files)]


def parse_copy(stream: bytes, limits: Resources) -> tuple[OutputFile, ...]:
    """The files in the keeper's framed stream. Raises `Denied` (the rule's own code, or contract_violation).

    1. It begins with the magic and ends with exactly one end frame, and nothing behind it.
    2. A violation names a rule we know; the files before it count for nothing.
    3. Names are the contract's, each at most once.
    4. Each file is all there, and together they are within the limit.
    """
    files: dict[str, OutputFile] = {}
    if stream[: len(MAGIC)] != MAGIC:  # (1)
        raise _violation("not a copy of the output")
    at = len(MAGIC)
    while at + FRAME.size <= len(stream):
        kind, name_bytes, size = FRAME.unpack_from(stream, at)
        at += FRAME.size
        name = stream[at : at + name_bytes].decode("ascii", "replace")
        at += name_bytes
        if kind == b"E" and (name_bytes, size, at) == (0, 0, len(stream)):  # (1)
            return tuple(files.values())
        if kind == b"V":  # (2)
            if name not in RULES:
                raise _violation("the output breaks the contract")
            raise Denied(Reason(CODES[name], RULES[name]))
        if kind != b"F" or not (name in NAMES or TABLE.fullmatch(name)) or name in files:  # (3)
            break
        content = stream[at : at + size]
        at += size
        files[name] = OutputFile(name, content)
        if len(content) != size or sum(len(file.content) for file in files.values()) > limits.out_bytes:  # (4)
            break
    raise _violation("not a copy of the output")


def parse_line(line: bytes) -> JobEvent:
    """One line of the keeper's: done, progress, failed or full, and nothing else. Raises `Denied`."""
    try:
        event = json.loads(line) if len(line) <= LINE_BYTES else None
    except Exception:  # noqa: BLE001 - what cannot be read is something else than the keeper says
        event = None
    members = event if isinstance(event, dict) else {}
    task, fraction = members.get("task"), members.get("fraction")
    # exact types: JSON's true is no number, though Python would count it as one
    is_task = type(task) is int and 0 < task <= MAX_TASK
    if members.keys() == {"event", "task"} and members["event"] == "done" and is_task:
        return JobEvent("done", task=members["task"])
    is_fraction = type(fraction) in (int, float) and 0 <= members["fraction"] <= 1
    if members.keys() == {"event", "task", "fraction"} and members["event"] == "progress" and is_task and is_fraction:
        return JobEvent("progress", task=members["task"], fraction=float(members["fraction"]))
    name = members.get("exception")
    if members.keys() == {"event", "exception", "task"} and members["event"] == "failed" and is_task:
        # the keeper has the same list; what it should not have said is not repeated
        return JobEvent("failed", task=members["task"], code=RAISED.get(str(name), RAISED[OTHER]))
    if members == {"event": "full"}:
        return JobEvent("out_full")
    raise _violation("the keeper said something else")


def _violation(rule: str) -> Denied:
    return Denied(Reason(Code.CONTRACT_VIOLATION, rule))
