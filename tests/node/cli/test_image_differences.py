"""What people are told of an image beside another."""

from __future__ import annotations

from dataclasses import replace

import pytest

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
    assert set(differences(facts(), after)) == {
        Difference("entry point", "/run", "/run --twice"), Difference("command", "--fast", ""),
        Difference("user", "65532", "root"), Difference("folder", "", "/w"),
        Difference("platform", "linux/amd64", "linux/arm64"), Difference("environment", "B", ""),
        Difference("environment", "", "LD_PRELOAD"), Difference("volume", "", "/v"), Difference("layer", "", ONE),
        Difference("bill of materials", "", "/x " + "a" * 64), Difference("label l", "1", "2"),
        Difference("label m", "", "3"), Difference("package deb libc6", "1", ""),
        Difference("package python torch", "2", "3"), Difference("package python evil", "", "1"),
    }  # fmt: skip


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
