"""`cloister check`: what the canary found last and what that means; what nobody has filled in; and for anybody."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mediator.errors import UsageFault
from node.cli.it.check_config import configured
from node.cli.it.check_running import sandbox as _sandbox
from node.core import staff
from node.core.core import CoreProcess
from node.host.config import load_config
from node.host.keys import read_verify_key
from node.host.state import prepare_state
from node.ipc.server import Server
from tests.containers.bench import ENGINE_URL
from tests.end_to_end.commands import CLOISTER, ENVIRONMENT
from tests.node.core.process.test_process import configured as written
from tests.sim.runner import FakeRunner
from tests.sim.users import NOBODY, as_user

EXAMPLE = Path(__file__).parents[3] / "deploy" / "node.example.toml"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


def test_a_sandbox_that_held_says_when() -> None:
    found = _sandbox("held", 7200.0)
    assert (found["state"], found["detail"]) == ("ok", "held 2.0 h ago")


def test_a_sandbox_that_failed_is_missing_and_says_what_that_stops() -> None:
    found = _sandbox("failed", 60.0)
    assert found["state"] == "missing"
    assert "no job runs" in found["detail"]


def test_a_sandbox_that_was_never_tried_is_a_warning() -> None:
    assert _sandbox("unknown", None)["state"] == "warning"


# ---- what nobody has filled in


def said_of(found: dict[str, Any]) -> str:
    return f"{found['detail']}: {found['mend']}"


def findings(config: Path, *, uid: int | None = None, code: int | None = None) -> dict[str, dict[str, Any]]:
    """The real command's, by what they are about."""
    words = [str(CLOISTER), "check", "--config", str(config), "--json"]
    ended = subprocess.run(
        words if uid is None else as_user(words, uid), capture_output=True, text=True, cwd="/", timeout=60,
        env=dict(ENVIRONMENT), check=False,
    )  # fmt: skip
    assert "Traceback" not in ended.stderr and "internal" not in ended.stderr, ended
    assert code is None or ended.returncode == code, ended
    return {each["what"]: each for each in json.loads(ended.stdout)}


def changed(folder: Path, *pairs: tuple[str, str]) -> Path:
    """The example with some of it filled in."""
    text = EXAMPLE.read_text()
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new, 1)
    file = folder / "node.toml"
    file.write_text(text)
    return file


def test_the_example_left_as_it_is_is_not_green_and_each_placeholder_has_its_cure(tmp_path: Path) -> None:
    found = findings(changed(tmp_path), code=5)
    for what, cure in {
        "site": "the name that permits call this site", "hub address": "[hub] host", "trust in committee": "[trust]",
        "trust in stewards": "[trust] stewards", "users": "useradd", "source folder": "/srv/research-export",
        "sentinel image": "deploy/lib/images.sh cloister-sentinel",
    }.items():  # fmt: skip
        assert found[what]["state"] == "missing" and cure in found[what]["mend"], found[what]
    assert {found[f"trust in {each}"]["state"] for each in ("hub", "witnesses")} == {"warning"}


@pytest.mark.parametrize("purpose", ["committee", "stewards", "hub", "witnesses"])
@pytest.mark.parametrize(
    ("keys", "state"), [("[]", None), ('["' + "0" * 64 + '"]', "missing"), ('["' + "1" * 64 + '"]', "ok")]
)
def test_who_is_trusted_for_what_is_said(tmp_path: Path, purpose: str, keys: str, state: str | None) -> None:
    config = load_config(changed(tmp_path, (f"{purpose} = []", f"{purpose} = {keys}")))
    found = {each["what"]: each for each in configured(config)}[f"trust in {purpose}"]
    wanted = state or ("missing" if purpose in ("committee", "stewards") else "warning")
    assert found["state"] == wanted, found


@pytest.mark.parametrize(
    ("total", "state", "said"),
    [
        ("10.0", "ok", "all permits together may spend 10 on one dataset at delta 1e-06"),
        ("0", "warning", "no permit with a privacy budget runs here"),
        ("50", "warning", "bounds little"),
    ],
)
def test_what_all_permits_may_spend_together_is_said(tmp_path: Path, total: str, state: str, said: str) -> None:
    config = load_config(changed(tmp_path, ("epsilon_total = 10.0", f"epsilon_total = {total}")))
    found = {each["what"]: each for each in configured(config)}["privacy"]
    assert found["state"] == state and said in said_of(found) and "[privacy] epsilon_total" in said_of(found)


@pytest.mark.parametrize(
    "line", ["epsilon_total = -1", "epsilon_total = inf", "epsilon_total = nan", "delta = 1.0", "delta = 0"]
)
def test_a_budget_of_the_hospitals_that_is_none_is_refused(tmp_path: Path, line: str) -> None:
    old = "epsilon_total = 10.0" if line.startswith("epsilon") else "delta = 1e-6"
    with pytest.raises(UsageFault):
        load_config(changed(tmp_path, (old, line)))


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("# [[schedule.gpus]]\n", "[[schedule.gpus]]\n", "GPUs"),
        ("[airlock]\n", '[airlock]\npersons = [{subject = "a.b", public_key = "' + "0" * 64 + '"}]\n',
         "trust in reviewers"),
    ],
)  # fmt: skip
def test_zeros_are_found_wherever_the_example_has_them(tmp_path: Path, old: str, new: str, what: str) -> None:
    pairs = [(old, new)]
    if what == "GPUs":
        pairs += [("# id = ", "id = "), ("# memory_bytes = 83751862272", "memory_bytes = 83751862272")]
    found = {each["what"]: each for each in configured(load_config(changed(tmp_path, *pairs)))}
    assert found[what]["state"] == "missing"


# ---- for anybody


@pytest.fixture
def running() -> Iterator[Path]:
    """A node's core that is running, in a folder others may walk to; its configuration."""
    root = Path(tempfile.mkdtemp(prefix="cl-"))
    root.chmod(0o755)
    written(root)
    file = root / "node.toml"
    file.write_text(file.read_text().replace("[engine]\n", f'[engine]\nsocket = "{ENGINE_URL}"\n'))
    config = load_config(file)
    prepare_state(config)
    core = CoreProcess(config, FakeRunner(read_verify_key(config.paths.verdict_public_key), {}))
    core.start()
    servers: list[Server] = list(staff.servers(config, core))
    for server in servers:
        server.start()
    yield file
    for server in servers:
        server.stop()
    core.stop()
    shutil.rmtree(root)


@as_root
def test_whoever_is_not_root_hears_what_stands_and_what_they_may_not_see(running: Path) -> None:
    found = findings(running, uid=NOBODY, code=0)
    assert found["core"]["state"] == "unknown" and "may not ask" in found["core"]["detail"]
    assert found["state folder"]["state"] == "unknown" and "quarantine" in found["state folder"]["detail"]
    assert found["trust in committee"]["state"] == found["python"]["state"] == "ok"
    assert found["engine"]["state"] == "unknown"
    assert findings(running)["core"]["state"] == "ok"


@as_root
@pytest.mark.parametrize("closed", ["state", "state/run", "."])
def test_a_folder_closed_to_them_is_no_defect(running: Path, closed: str) -> None:
    if closed == ".":
        outside = Path(tempfile.mkdtemp(prefix="cl-"))  # they see the configuration, and not the way to the state
        outside.chmod(0o755)
        shutil.copyfile(running, outside / "node.toml")
        (running.parent).chmod(0o700)
        found = findings(outside / "node.toml", uid=NOBODY)
        shutil.rmtree(outside)
    else:
        (running.parent / closed).chmod(0o700)
        found = findings(running, uid=NOBODY)
    assert found["core"]["state"] == "unknown" and found["state folder"]["state"] in ("unknown", "missing"), found


@as_root
def test_a_source_folder_is_looked_at_as_the_process_that_must_read_it(tmp_path: Path) -> None:
    root = Path(tempfile.mkdtemp(prefix="cl "))
    root.chmod(0o755)
    users = "\n".join(f"{role} = {64101 + n}" for n, role in enumerate(("core", "intake", "broker", "link")))
    written(root)
    file = root / "node.toml"
    file.write_text(f"{file.read_text()}[users]\n{users}\n")
    assert {each["what"]: each for each in configured(load_config(file))}["source folder"]["state"] == "ok"
    root.chmod(0o700)
    found = {each["what"]: each for each in configured(load_config(file))}["source folder"]
    assert found["state"] == "missing" and "setfacl" in found["mend"] and "64102" in found["mend"]
    assert any(str(root) in word for word in shlex.split(found["mend"])), "the line holds for a path with a space"
    shutil.rmtree(root)


@as_root
def test_a_node_of_a_plain_user_is_in_order_for_root_too(tmp_path: Path) -> None:
    """Who owns the state folder has started it: root who looks is told of no wrong owner."""
    root = Path(tempfile.mkdtemp(prefix="cl-"))
    root.chmod(0o777)
    written(root)
    init = [str(CLOISTER), "node", "init", "--config", str(root / "node.toml")]
    subprocess.run(as_user(init, NOBODY), check=True, capture_output=True, cwd="/", env=dict(ENVIRONMENT))
    assert findings(root / "node.toml", uid=NOBODY)["state folder"]["state"] == "ok"
    assert findings(root / "node.toml")["state folder"]["state"] == "ok"
    shutil.rmtree(root)
