"""There is one way to write a file whole (`durable.files`). Whoever opens one to write in another way stands here, with
the reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
PRODUCT = ("mediator", "containers", "federation", "node")
# what runs inside a container, or is handed out: none of our packages is there
NOT_OURS = ("containers/images/", "containers/job/", "node/kit/templates/")

APPENDED = "a record that grows by lines, each flushed where it must not be lost"
LOG = "a log: it grows while it is read"
LOCK = "an empty file that is locked, and never written"
SQLITE = "made empty with its mode; SQLite writes it"
AHEAD = "de-identified output: written under another name, verified, then renamed by whoever hands it over"
INSIDE = "a file of a folder that is not there yet for anybody else, and appears by rename"

EXCEPTIONS = {
    "containers/self_test_job.py": "a program in a container: the standard library alone, and DONE when it is whole",
    "federation/hub/service.py": LOCK,
    "federation/hub/superlink.py": LOG,
    "node/cli/steward/deid_key.py": APPENDED,
    "node/core/store/audit_log.py": APPENDED,
    "node/core/store/engine.py": SQLITE,
    "node/core/store/migrate.py": SQLITE,
    "node/core/reserve.py": "nothing but its size, which is the disk's to give",
    "node/core/switch.py": "a mark that counts when it is empty, for a full disk may have room for no more",
    "node/deid/deidentify_folder.py": "the report of a run grows by lines while it runs",
    "node/deid/pixels/duplicates.py": APPENDED,
    "node/deid/pixels/rewrite.py": AHEAD,
    "node/deid/write_output.py": AHEAD,
    "node/host/logs.py": LOG,
    "node/host/supervisor.py": LOG,
    "node/intake/intake_db.py": SQLITE,
    "node/intake/quarantine.py": "encrypted piece by piece under a name that nobody knows yet, then renamed",
    "node/ipc/sockets.py": LOCK,
    "node/kit/trial.py": "a temporary folder, which goes with the trial",
}

WRITING_METHODS = {"write_text", "write_bytes", "touch"}
TEMPORARY = {"NamedTemporaryFile", "TemporaryFile", "mkstemp", "mkdtemp"}
COPYING = {"copy", "copy2", "copyfile"}


def writes(source: str) -> Iterator[tuple[int, str]]:
    """(line, what) of everything in a module that makes a file or opens one to write."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in ("O_CREAT", "O_TMPFILE"):
            yield node.lineno, node.attr
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            module = node.func.value.id if isinstance(node.func, ast.Attribute) and isinstance(
                node.func.value, ast.Name
            ) else ""  # fmt: skip
            if name in WRITING_METHODS | TEMPORARY or (name in COPYING and module == "shutil"):
                yield node.lineno, name
            elif name == "open" and module != "os" and any(_is_mode(each) for each in _arguments(node)):
                yield node.lineno, "open"


def _arguments(call: ast.Call) -> list[ast.expr]:
    """The arguments that may be a mode; what is opened in memory is no file."""
    if any(word.arg == "fileobj" for word in call.keywords):
        return []
    return [*call.args[:2], *(word.value for word in call.keywords if word.arg == "mode")]


def _is_mode(argument: ast.expr) -> bool:
    value = argument.value if isinstance(argument, ast.Constant) else None
    return (
        isinstance(value, str)
        and 0 < len(value) <= 3
        and set(value) <= set("rwxabt+")
        and bool(set(value) & set("wxa+"))
    )


@cache
def found() -> dict[str, list[tuple[int, str]]]:
    there: dict[str, list[tuple[int, str]]] = {}
    for package in PRODUCT:
        for path in sorted((REPO / package).rglob("*.py")):
            name = path.relative_to(REPO).as_posix()
            if not name.startswith(NOT_OURS) and (lines := list(writes(path.read_text("utf-8")))):
                there[name] = lines
    return there


def test_files_are_written_in_one_way_and_exceptions_have_a_reason() -> None:
    others = {name: lines for name, lines in found().items() if name not in EXCEPTIONS}
    assert others == {}, "use durable.files, or say here why not"


def test_no_exception_outlives_its_reason() -> None:
    assert [name for name in EXCEPTIONS if name not in found()] == []


@pytest.mark.parametrize(
    "line",
    [
        "os.open(path, os.O_WRONLY | os.O_CREAT)", "open(path, 'w')", "open(path, mode='xb')", "path.open('wb')",
        "path.open('a')", "open(path, 'r+b')", "path.write_text('x')", "path.write_bytes(b'')", "path.touch()",
        "tempfile.mkstemp()", "NamedTemporaryFile()", "shutil.copyfile(a, b)",
    ],
)  # fmt: skip
def test_a_way_around_is_seen(line: str) -> None:
    assert list(writes(line))


@pytest.mark.parametrize(
    "line",
    ["open(path)", "path.open('rb')", "os.open(path, os.O_RDONLY)", "tarfile.open(fileobj=sink, mode='w')", "x.copy()"],
)
def test_reading_is_not_taken_for_writing(line: str) -> None:
    assert not list(writes(line))
