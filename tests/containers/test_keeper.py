"""What the keeper believes of a job's own word about its end: attacks through `failure.json`, on plain folders."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import ModuleType

import pytest

from containers.job.contract import EXCEPTIONS
from containers.volumes import parse_copy
from mediator.errors import Code, Denied
from mediator.exits import OTHER, RAISED
from tests.mediator import samples
from tests.sim.users import as_user

_FILE = Path(__file__).resolve().parents[2] / "containers" / "images" / "sentinel" / "keeper.py"


@pytest.fixture(scope="module")
def keeper() -> ModuleType:
    spec = importlib.util.spec_from_file_location("keeper", _FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def heard(keeper: ModuleType, folder: Path) -> str | None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return keeper.failure(handle)
    finally:
        os.close(handle)


def test_the_three_lists_are_one(keeper: ModuleType) -> None:
    assert set(RAISED) - {OTHER} == keeper.EXCEPTIONS == EXCEPTIONS


def test_a_class_of_the_list_is_heard(keeper: ModuleType, tmp_path: Path) -> None:
    assert heard(keeper, tmp_path) is None
    (tmp_path / "failure.json").write_text('{"exception": "ValueError"}')
    assert heard(keeper, tmp_path) == "ValueError"
    longest = max(EXCEPTIONS, key=len)
    (tmp_path / "failure.json").write_text(json.dumps({"exception": longest}))
    assert heard(keeper, tmp_path) == longest


@pytest.mark.parametrize("name", ["Mrs. Smith, 4711", "valueerror", "", "ValueError ", "SystemExit", "Exception", "🩻"])
def test_a_name_that_is_on_no_list_is_other(keeper: ModuleType, tmp_path: Path, name: str) -> None:
    (tmp_path / "failure.json").write_text(json.dumps({"exception": name}, ensure_ascii=False), encoding="utf-8")
    assert heard(keeper, tmp_path) == "other"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"ValueError", b"null", b"[]", b'"ValueError"', b'["ValueError"]', b'{"exception": 7}', b"\xff\xfe{}",
        b'{"exception": ["ValueError"]}', b'{"exception": null}', b'{"exception": true}',
        b'{"Exception": "ValueError"}',
        b'{"exception": "ValueError", "text": "patient 17"}', b'{"exception": "ValueError"} patient 17',
        b"[" * 120, b'{"exception":' * 9, b'{"exception": "ValueError"}' + b" " * 200,
        b'{"exception": "' + b"a" * 1_000_000 + b'"}',
    ],
)  # fmt: skip
def test_text_depth_and_size_in_it_say_nothing(keeper: ModuleType, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "failure.json").write_bytes(content)
    assert heard(keeper, tmp_path) is None


def test_what_is_no_plain_file_says_nothing(keeper: ModuleType, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text('{"exception": "ValueError"}')
    for make in (
        lambda at: at.symlink_to(secret),
        lambda at: os.mkfifo(at),
        lambda at: at.mkdir(),
    ):
        folder = tmp_path / f"task-{make.__code__.co_firstlineno}"
        folder.mkdir()
        make(folder / "failure.json")
        assert heard(keeper, folder) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's folder takes root to make")
@pytest.mark.parametrize("name", ["metrics.json", "a\udcff"])
def test_a_folder_that_lets_nobody_look_at_its_files_breaks_a_rule_and_not_the_keeper(name: str) -> None:
    """Whatever it meets, the keeper's answer has an end: what has none could be anything."""
    root = Path(tempfile.mkdtemp(prefix="keeper-"))
    try:
        (root / "1").mkdir()
        (root / "1" / name).write_bytes(b"{}")
        root.chmod(0o755)
        (root / "1").chmod(0o444)  # it can be listed, and nothing in it can be looked at
        program = f"import sys\nexec(sys.stdin.read())\nROOT = {str(root)!r}\ncopy(1, 1000, 10)"
        source = _FILE.read_text().partition('if __name__ == "__main__"')[0]
        done = subprocess.run(
            as_user(["/usr/bin/python3", "-I", "-c", program]), input=source.encode(), capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
        with pytest.raises(Denied) as denied:
            parse_copy(done.stdout, samples.POLICY.resources)
        expected = Code.CONTRACT_UNREADABLE if name == "metrics.json" else Code.CONTRACT_UNKNOWN_NAME
        assert denied.value.reasons[0].code is expected
    finally:
        shutil.rmtree(root)
