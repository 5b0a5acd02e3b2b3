"""Our own torch programs compute on the device they have: read in their source, for only a card could try it.

What a card did with them is `tests/containers/test_gpus.py`'s, where there is one.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[3]
TREES = ("containers/images", "node/kit/templates")


def networks() -> list[Path]:
    """Every program of ours that defines a torch network."""
    files = [path for tree in TREES for path in (REPO / tree).rglob("*.py")]
    return sorted(path for path in files if "nn.Module" in path.read_text("utf-8"))


def test_the_reference_job_and_both_torch_templates_are_among_them() -> None:
    assert [str(path.relative_to(REPO)) for path in networks()] == [
        "containers/images/job-torch/train.py", "node/kit/templates/flower/task.py", "node/kit/templates/torch/train.py"
    ]  # fmt: skip


def calls(tree: ast.AST, method: str) -> list[ast.Call]:
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return [call for call in found if isinstance(call.func, ast.Attribute) and call.func.attr == method]


@pytest.mark.parametrize("path", networks(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_device_is_the_card_where_there_is_one_and_every_part_goes_there(path: Path) -> None:
    project = {each: ast.parse(each.read_text("utf-8")) for each in path.parent.glob("*.py")}
    chosen = ast.parse('DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")').body[0]
    assert any(ast.dump(node) == ast.dump(chosen) for node in project[path].body)
    moved = [call for tree in project.values() for call in calls(tree, "to") if ast.unparse(call.args[0]) == "DEVICE"]
    receivers = {ast.unparse(call.func.value) for call in moved if isinstance(call.func, ast.Attribute)}
    networks = [text for text in receivers if text.lower().endswith(("net()", "net"))]
    assert networks, "the network"
    assert len(receivers) - len(networks) >= 2, "volumes and labels"


@pytest.mark.parametrize("path", networks(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_numpy_is_given_was_brought_back_first(path: Path) -> None:
    for each in path.parent.glob("*.py"):
        for call in calls(ast.parse(each.read_text("utf-8")), "numpy"):
            assert ".cpu()" in ast.unparse(call), ast.unparse(call)
