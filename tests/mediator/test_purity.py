"""The mediator decides and never does: held to its imports and to what it may call, module by module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mediator

ROOT = Path(mediator.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

STANDARD = {
    "__future__", "base64", "bisect", "calendar", "collections", "csv", "dataclasses", "datetime", "decimal", "enum",
    "functools", "hashlib", "hmac", "itertools", "json", "math", "operator", "re", "string", "struct", "tomllib",
    "types", "typing", "unicodedata", "uuid", "mediator",
}  # fmt: skip
ALSO = {
    "canonical.py": {"rfc8785"},
    "signatures.py": {"cryptography", "joserfc"},
    "tensors.py": {"numpy"},
    "release/noise.py": {"numpy"},
    "release/clip.py": {"numpy"},
}
FORBIDDEN_NAMES = {"open", "exec", "eval", "compile", "__import__", "print", "input", "breakpoint"}
FORBIDDEN_CALLS = {"now", "today", "utcnow", "time_ns", "monotonic", "urandom", "uuid1", "uuid4", "load", "read_text"}


def _imports(tree: ast.AST) -> Iterator[str]:
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name their package"
            yield (node.module or "").split(".")[0]


def _faults(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith | ast.Global):
            yield f"line {node.lineno}: {type(node).__name__}"
        if isinstance(node, ast.Name) and node.id in FORBIDDEN_NAMES | {"os", "logging", "secrets"}:
            yield f"line {node.lineno}: {node.id}"
        if isinstance(node, ast.Attribute) and node.attr == "random":
            yield f"line {node.lineno}: .random"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FORBIDDEN_CALLS:
            yield f"line {node.lineno}: .{node.func.attr}("


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_its_place_allows(module: Path) -> None:
    allowed = STANDARD | ALSO.get(str(module.relative_to(ROOT)), set())
    assert set(_imports(ast.parse(module.read_text()))) <= allowed


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_reads_no_clock_file_or_entropy(module: Path) -> None:
    assert list(_faults(ast.parse(module.read_text()))) == []


@pytest.mark.parametrize(
    "text",
    ["open('x')", "datetime.now()", "os.remove('x')", "np.random.normal()", "async def f(): pass", "uuid.uuid4()"],
)
def test_the_purity_test_itself_finds(text: str) -> None:
    assert list(_faults(ast.parse(text)))


def test_every_exception_to_the_allow_list_is_used() -> None:
    for name, extra in ALSO.items():
        assert extra <= set(_imports(ast.parse((ROOT / name).read_text()))), name


# --- a gate is read in an afternoon ---------------------------------------------------------------------------

GATES = {
    "0": ["deid"], "1": ["admission.py"], "2, models": ["release"], "2, tables": ["airlock"],
}  # fmt: skip
AFTERNOON_LINES = 3300


def _modules(place: str) -> set[Path]:
    path = ROOT / place
    return set(path.rglob("*.py")) if path.is_dir() else {path}


def _stands_on(module: Path) -> set[Path]:
    """The modules of the mediator that one imports."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            path = ROOT.parent / (name.replace(".", "/") + ".py")
            if name.startswith("mediator.") and path.is_file():
                found.add(path)
    return found


def _read(gate: str) -> set[Path]:
    """A gate's modules and the ground they stand on."""
    seen: set[Path] = set()
    todo = {path for place in GATES[gate] for path in _modules(place)}
    while todo:
        module = todo.pop()
        seen.add(module)
        todo |= _stands_on(module) - seen
    return seen


@pytest.mark.parametrize("gate", GATES)
def test_a_gate_with_its_ground_is_read_in_an_afternoon(gate: str) -> None:
    read = _read(gate)
    assert sum(len(module.read_text().splitlines()) for module in read) <= AFTERNOON_LINES
    others = {path for name, places in GATES.items() if name != gate for place in places for path in _modules(place)}
    assert not read & others, "a gate stands on another one"
