"""`cloister config`: values with where they come from, every key explained, every fault of a file with its line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mediator.errors import UsageFault
from node.cli.config import MASKED, explained, values
from node.cli.config_file import ConfigKind, faults, fields, hub_kind, kind_of, node_kind, read_toml
from node.cli.options import HUB_FILE, NODE_FILE
from tests.end_to_end.commands import CLOISTER, ENVIRONMENT
from tests.example_words import words
from tests.node.host.minimal import MINIMAL

DEPLOY = Path(__file__).parents[3] / "deploy"
BOTH = pytest.mark.parametrize("kind", [node_kind(), hub_kind()], ids=["node", "hub"])


def asked(*arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(CLOISTER), *arguments], capture_output=True, text=True, timeout=60, check=False,
        env=dict(ENVIRONMENT) | environment,
    )  # fmt: skip
    assert done.returncode == code, done
    return done


# ---- one source of words


@BOTH
def test_every_key_has_words_and_the_example_says_the_same(kind: ConfigKind) -> None:
    text = (DEPLOY / f"{kind.name}.example.toml").read_text()
    said, known = words(text), fields(kind)
    assert kind.words.keys() == known.keys() and all(kind.words.values())
    inline = {key for key in known if key.partition(".")[2].startswith("persons.")}
    for key in known.keys() - inline:
        assert said[key] == kind.words[key], key
    assert said.keys() == known.keys() - inline, "the example has a key that there is not"
    assert all(f"{key.rpartition('.')[2]} = " in text for key in inline)


@BOTH
def test_each_default_that_the_example_writes_out_is_one_that_the_model_takes(kind: ConfigKind) -> None:
    _, plain = read_toml(DEPLOY / f"{kind.name}.example.toml")
    assert kind_of(plain).name == kind.name and faults(kind, "", plain) == []


@BOTH
def test_every_key_is_explained_with_type_and_default(kind: ConfigKind) -> None:
    rows = list(explained(kind, ""))
    assert [row["key"] for row in rows] == list(fields(kind))
    for row in rows:
        assert row["type"] and row["default"] is not None and row["meaning"], row


@pytest.mark.parametrize(
    ("key", "kind", "says"),
    [
        (
            "limits.keep_log_s",
            "node",
            {"type": "a whole number", "default": 3600, "range": "at least 0, at most 86,400"},
        ),
        ("privacy.delta", "node", {"type": "a number", "range": "more than 0, less than 1"}),
        ("logging.level", "node", {"type": "one of debug, info, warning, error", "default": "info"}),
        ("intake.source_roots", "node", {"type": "a list, each a path", "default": "an empty list"}),
        ("users.core", "node", {"type": "a text or a whole number", "default": "nothing"}),
        ("site", "node", {"default": "none: it must be written"}),
        ("ingress.port", "hub", {"range": "at least 1, at most 65,535"}),
        ("hub.host", "node", {"range": "at least 1 characters, at most 253 characters"}),
        ("ingress.hosts", "hub", {"range": "at least 1 entries"}),
    ],
)
def test_a_key_is_explained(key: str, kind: str, says: dict[str, Any]) -> None:
    [row] = json.loads(asked("config", "explain", key, f"--{kind}", "--json").stdout)
    assert row["key"] == key and says.items() <= row.items(), row
    assert row["meaning"] in asked("config", "explain", key, f"--{kind}").stdout


def test_a_key_that_there_is_not_names_those_there_are() -> None:
    assert "limits.cpus" in asked("config", "explain", "limits.cpu", code=2).stderr
    assert "schedule" in asked("config", "explain", "xyzzy", "--node", code=2).stderr


# ---- values


def test_each_value_says_whether_the_file_or_the_default_gives_it_and_secrets_are_masked(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    secret = tmp_path / "s3cret-place"
    file.write_text(MINIMAL.replace("[hub]", f'database = "file:{secret}"\n[hub]') + "[limits]\npids = 99\n")
    done = asked("config", "show", "--config", str(file), "--json")
    found = {row["key"]: row for row in json.loads(done.stdout)}
    assert found["limits.pids"] == {"key": "limits.pids", "value": 99, "from": "file"}
    assert found["limits.cpus"] == {"key": "limits.cpus", "value": 2.0, "from": "default"}
    assert found["database"]["value"] == MASKED and "s3cret" not in done.stdout
    plain = asked("config", "show", "--config", str(file)).stdout
    assert "limits.pids\t99\tfile" in plain and "s3cret" not in plain
    named = asked("config", "show", "--json", CLOISTER_NODE_CONFIG=str(file))
    assert named.stdout == done.stdout


def test_a_hubs_values_are_shown_too(tmp_path: Path) -> None:
    _, plain = read_toml(DEPLOY / "hub.example.toml")
    found = {row["key"]: row for row in values(hub_kind(), plain, tmp_path)}
    assert found["ingress.port"]["from"] == "file" and found["runs.minimum_sites"]["value"] == 0


def test_a_file_with_a_fault_has_no_values(tmp_path: Path) -> None:
    with pytest.raises(UsageFault, match="is missing"):
        list(values(node_kind(), {}, tmp_path))


# ---- faults

WRONG = """site = "north"
state_dir = "/var/lib/cloister"
sight = 3
[hub]
host = "hub.example"
port = 99999
[engine]
sentinel = "sha256:00"
[limits]
cpus = "four"
[[schedule.gpus]]
id = "GPU-11111111-1111-1111-1111-111111111111"
memory_bytes = 4
[[schedule.gpus]]
id = "one"
memory_bytes = 4
[schedule]
"""


def test_every_fault_of_a_file_is_said_at_once_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(WRONG.removesuffix("[schedule]\n"))
    done = asked("config", "validate", str(file), "--json", code=2)
    found = {row["key"]: row for row in json.loads(done.stdout)}
    lines = {"sight": 3, "hub.port": 6, "engine.sentinel": 8, "limits.cpus": 10, "schedule.gpus.1.id": 15}
    assert {key: row["line"] for key, row in found.items()} == lines
    assert found["sight"]["hint"] == "did you mean site?" and "5 faults" in done.stderr


def test_a_key_that_is_missing_is_said_at_its_section(tmp_path: Path) -> None:
    file = tmp_path / "hub.toml"
    file.write_text('version = 1\nname = "hub"\nstate_dir = "x"\n[ingress]\nport = 1\n[trust]\ncommittee_keys = []\n')
    found = {row["key"]: row for row in json.loads(asked("config", "validate", str(file), "--json", code=2).stdout)}
    assert found["ingress.hosts"]["line"] == 4 and found["trust.committee_keys"]["line"] == 7


def test_what_is_no_toml_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('site = "north"\nstate_dir = /var\n')
    assert "line 2" in asked("config", "validate", str(file), code=2).stderr
    file.write_bytes(b"\xff\xfe")
    assert "UTF-8" in asked("config", "validate", str(file), code=2).stderr


def test_a_whole_file_is_called_so(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(MINIMAL)
    assert "a node's configuration, and whole" in asked("config", "validate", str(file)).stderr
    alone = asked("config", "validate", CLOISTER_NODE_CONFIG=str(file))
    assert f"{file} is a node's" in alone.stderr, "where none is named, this machine's own"


# ---- where a configuration is found


def test_an_installed_machines_configuration_is_found_without_flag_or_variable() -> None:
    if NODE_FILE.exists() or HUB_FILE.exists():
        pytest.skip("this machine has one")
    for words_ in (("node", "status"), ("node", "job", "list"), ("node", "init"), ("config", "show")):
        assert str(NODE_FILE) in asked(*words_, code=2).stderr, words_
    for words_ in (("hub", "status"), ("hub", "run", "list"), ("hub", "check")):
        assert str(HUB_FILE) in asked(*words_, code=2).stderr, words_


def test_the_flag_comes_before_the_variable_and_the_variable_before_the_machines_own() -> None:
    told = {"CLOISTER_NODE_CONFIG": "/nonexistent/variable.toml"}
    assert "variable.toml" in asked("node", "status", code=2, **told).stderr
    assert "flag.toml" in asked("node", "status", "--config", "/nonexistent/flag.toml", code=2, **told).stderr
