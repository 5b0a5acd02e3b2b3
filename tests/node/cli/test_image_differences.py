"""What people are told of an image beside another."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediator.errors import Malformed
from mediator.images import Layer, Package, Sbom
from node.cli.it.image_differences import Difference, differences, lineage_of
from tests.mediator.test_images import ONE, PLAIN, ZERO, changed, facts


def test_two_equal_images_do_not_differ() -> None:
    assert differences(facts(), facts()) == ()


def test_every_difference_is_told() -> None:
    after_plain = PLAIN | {
        "config": {
            "Entrypoint": ["/run", "--twice"], "User": "root", "Env": ["A=x", "LD_PRELOAD=y"],
            "Labels": {"l": "2", "m": "3"}, "Volumes": {"/v": {}}, "WorkingDir": "/w",
        },
        "rootfs": {"diff_ids": [ZERO, ONE]}, "architecture": "arm64",
    }  # fmt: skip
    after = facts(
        after_plain,
        layers=(Layer(ZERO, ZERO, 5), Layer(ONE, ONE, 6)),
        packages=(Package("python", "torch", "3"), Package("python", "evil", "1")),
        sboms=(Sbom("spdx", "SPDX-2.3", "/x", "a" * 64, 3),),
    )
    secret = "sha256:" + hashlib.sha256(b'"secret"').hexdigest()
    x = "sha256:" + hashlib.sha256(b'"x"').hexdigest()
    nothing = "sha256:" + hashlib.sha256(b'""').hexdigest()
    found = {each for each in differences(facts(), after) if each.what != "layers"}
    assert found == {
        Difference("entry point", '["/run"]', '["/run", "--twice"]'), Difference("command", '["--fast"]', ""),
        Difference("root file system", "layers", ""), Difference("user", "65532", "root"),
        Difference("folder", "", "/w"),
        Difference("architecture", "amd64", "arm64"), Difference("environment A", secret, x),
        Difference("environment B, without a value", nothing, ""), Difference("environment LD_PRELOAD", "", "y"),
        Difference("volume /v", "", "declared"), Difference("layer", "", ONE),
        Difference("bill of materials", "", "/x " + "a" * 64), Difference("label l", "1", "2"),
        Difference("label m", "", "3"), Difference("package deb libc6", "1", ""),
        Difference("package python torch", "2", "3"), Difference("package python evil", "", "1"),
    }  # fmt: skip


# --- attacks: another program behind the same look ------------------------------------------------------------

SEARCHED = "/usr/local/bin:/usr/bin"
BASE = changed(Env=[f"PATH={SEARCHED}", "TOKEN=one", "PYTHONPATH=/app"])


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("PATH", SEARCHED, f"/tmp/evil:{SEARCHED}"), ("LD_PRELOAD", None, "/opt/evil.so"),
        ("PYTHONPATH", "/app", "/evil"), ("LD_LIBRARY_PATH", None, "/evil"), ("BASH_ENV", None, "/evil.sh"),
        ("PYTHONSTARTUP", None, "/e.py"), ("NODE_OPTIONS", None, "-r /e"), ("JAVA_TOOL_OPTIONS", None, "-javaagent:/e"),
    ],
)  # fmt: skip
def test_another_path_or_preload_is_shown_with_its_value(name: str, before: str | None, after: str) -> None:
    env = [each for each in BASE["config"]["Env"] if not each.startswith(f"{name}=")]
    found = differences(facts(BASE), facts(changed(Env=[*env, f"{name}={after}"])))
    assert found == (Difference(f"environment {name}", before or "", after),)


def test_another_secret_is_a_difference_and_is_not_shown() -> None:
    env = [each.replace("TOKEN=one", "TOKEN=two") for each in BASE["config"]["Env"]]
    (found,) = differences(facts(BASE), facts(changed(Env=env)))
    assert found.what == "environment TOKEN" and found.before.startswith("sha256:") and "two" not in found.after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"Env": ["PATH=/good"]}, {"Env": ["PATH=/good", "PATH=/evil"]}),
        ({"Env": ["PATH=/good"]}, {"Env": ["PATH=/good", "Path=/good"]}),
        ({"Env": ["PATH=" + "/a:" * 2000 + "/good"]}, {"Env": ["PATH=" + "/a:" * 2000 + "/evil"]}),
        ({"Env": ["PATH=/a\x1b"]}, {"Env": ["PATH=/a\\x1b"]}),
        ({"Env": ["A=1"]}, {"Env": ["A"]}),
        ({"Env": ["A="]}, {"Env": ["A"]}),
        ({"Entrypoint": ["/run a"]}, {"Entrypoint": ["/run", "a"]}),
        ({"Cmd": None}, {"Cmd": [""]}),
        ({"Shell": ["/bin/sh", "-c"]}, {"Shell": ["/evil", "-c"]}),
        ({}, {"Healthcheck": {"Test": ["CMD", "/evil"]}}),
        ({}, {"StopSignal": "SIGUSR1"}),
        ({}, {"OnBuild": ["RUN evil"]}),
        ({}, {"ExposedPorts": {"80/tcp": {}}}),
        ({"ExposedPorts": {"80/tcp": {}}}, {"ExposedPorts": {"80/tcp": {"x": 1}}}),
        ({"Volumes": {"/v": {}}}, {"Volumes": {"/v": {"x": 1}}}),
        ({"Labels": {"a": "1, b=2"}}, {"Labels": {"a": "1", "b": "2"}}),
        ({}, {"NobodyKnows": {"x": [1]}}),
        ({"NobodyKnows": {"x": [1]}}, {"NobodyKnows": {"x": [2]}}),
        ({"ArgsEscaped": False}, {"ArgsEscaped": True}),
    ],
)  # fmt: skip
def test_whatever_is_another_in_a_configuration_is_a_difference(before: dict[str, Any], after: dict[str, Any]) -> None:
    found = differences(facts(changed(**before)), facts(changed(**after)))
    assert found and all(each.before != each.after for each in found)


def test_layers_in_another_order_are_another_image() -> None:
    one = facts(PLAIN | {"rootfs": {"diff_ids": [ZERO, ONE]}}, layers=(Layer(ZERO, ZERO, 5), Layer(ONE, ONE, 6)))
    other = facts(PLAIN | {"rootfs": {"diff_ids": [ONE, ZERO]}}, layers=(Layer(ONE, ONE, 6), Layer(ZERO, ZERO, 5)))
    assert [each.what for each in differences(one, other)] == ["layers"]


def test_a_configuration_written_otherwise_is_told_though_it_says_the_same() -> None:
    spelled = json.loads(json.dumps(PLAIN))
    spelled["config"]["user"] = spelled["config"].pop("User")
    spelled["config"]["Volumes"] = None
    assert [each.what for each in differences(facts(), facts(spelled))] == ["configuration, as it is written"]


SCALAR = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4)
FLAT = SCALAR | st.lists(SCALAR, max_size=2)
JSON = FLAT | st.dictionaries(st.text(st.characters(max_codepoint=127), max_size=4), FLAT, max_size=2)
KEY = st.sampled_from(["Env", "Cmd", "Shell", "Labels", "Volumes", "OnBuild", "Unknown", "User", "StopTimeout"])


@settings(max_examples=300, deadline=None)
@given(KEY, JSON, st.sampled_from(["config", "rootfs", "top", "history"]))
def test_no_two_configurations_look_alike(key: str, value: Any, where: str) -> None:
    other = json.loads(json.dumps(PLAIN))
    place = {"config": other["config"], "rootfs": other["rootfs"], "top": other, "history": other["history"][1]}[where]
    place[key] = value
    try:
        after = facts(other)
    except (ValueError, Malformed):
        return  # refused: nobody can approve it
    assert bool(differences(facts(), after)) is (after.config != facts().config)


def test_a_package_that_is_there_twice_is_told_with_both_versions() -> None:
    twice = facts(packages=(*facts().packages, Package("python", "torch", "1")))
    assert differences(facts(), twice) == (Difference("package python torch", "2", "1, 2"),)


@pytest.mark.parametrize(
    ("names", "lineage"),
    [
        (("job:1",), "job"), (("localhost:5000/team/job:1",), "localhost:5000/team/job"), (("job",), "job"),
        (("r.example/job@sha256:00",), "r.example/job"), ((), "titled"), ((":1", "x:2"), "x"), (("",), "titled"),
    ],
)  # fmt: skip
def test_a_lineage_is_a_name_without_its_tag(names: tuple[str, ...], lineage: str) -> None:
    titled = facts(changed(Labels={"org.opencontainers.image.title": "titled"}))
    assert lineage_of(replace(titled, names=names)) == lineage
    assert lineage_of(facts(names=())) == ""
