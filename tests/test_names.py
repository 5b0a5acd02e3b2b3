"""One name for one thing: whoever reads `Sandbox` or `Task` need not ask which."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("containers", "federation", "mediator", "node")
# what runs in containers of its own, or is a researcher's to read, names things for its own readers
APART = ("containers/images/", "containers/job/", "node/kit/templates/")


def _classes() -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(APART):
                tree = ast.parse(path.read_text("utf-8"))
                for node in tree.body:
                    if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                        found[node.name].append(name)
    return found


def test_no_two_classes_share_a_name() -> None:
    assert {name: places for name, places in _classes().items() if len(places) > 1} == {}
