"""An image as a value: it cannot lie about what it starts, and what changed is told."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from mediator import canonical
from mediator.errors import Code, Malformed
from mediator.images import (
    MAX_PACKAGES,
    ImageFacts,
    Layer,
    Package,
    Sbom,
    printable,
    read_config,
    read_facts,
    unfit,
)

ZERO = "sha256:" + "0" * 64
ONE = "sha256:" + "1" * 64
PLAIN: dict[str, Any] = {
    "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
    "config": {"Entrypoint": ["/run"], "Cmd": ["--fast"], "User": "65532", "Env": ["A=secret", "B"],
               "Labels": {"l": "1"}},
    "rootfs": {"type": "layers", "diff_ids": [ZERO]}, "history": [{"created_by": "COPY"}, {"empty_layer": True}],
}  # fmt: skip


def facts(plain: dict[str, Any] | None = None, **other: Any) -> ImageFacts:
    config = json.dumps(PLAIN if plain is None else plain)
    usual: dict[str, Any] = {
        "image": "sha256:" + hashlib.sha256(config.encode()).hexdigest(), "manifest": None, "origin": "archive",
        "lineage": "job", "names": ("job:1",), "config": config, "layers": (Layer(ZERO, ZERO, 5),),
        "packages": (Package("deb", "libc6", "1"), Package("python", "torch", "2")), "sboms": (), "unread": (),
    }  # fmt: skip
    return ImageFacts(**(usual | other))


def changed(**inner: Any) -> dict[str, Any]:
    return PLAIN | {"config": PLAIN["config"] | inner}


def test_facts_cross_a_socket_unchanged() -> None:
    one = facts(sboms=(Sbom("spdx", "SPDX-2.3", "/x", "0" * 64, 3),), manifest=ONE)
    assert read_facts(canonical.encode(one).decode()) == one


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("config", json.dumps(changed(Entrypoint=["/evil"]))),
        ("image", ZERO),
        ("layers", []),
        ("layers", [{"digest": ZERO, "diff_id": ONE, "size_bytes": 1}]),
        ("manifest", "latest"),
        ("names", ["a\x1b[2J"]),
        ("lineage", "x" * 500),
        ("unread", ["\u202e"]),
        ("packages", [{"kind": "deb", "name": "a\nb", "version": "1"}]),
        ("packages", [{"kind": "deb", "name": "a", "version": "1"}] * (MAX_PACKAGES + 1)),
        ("origin", "elsewhere"),
    ],
)
def test_facts_that_contradict_themselves_or_cannot_be_shown_cannot_be_read(member: str, value: Any) -> None:
    plain = canonical.to_plain(facts()) | {member: value}
    with pytest.raises(Malformed):
        read_facts(canonical.dumps(plain).decode())


def test_the_configuration_is_told_without_the_values_of_the_environment() -> None:
    config = read_config(json.dumps(PLAIN))
    assert (config.entrypoint, config.command, config.user) == (("/run",), ("--fast",), "65532")
    assert "secret" not in repr(config) and config.history == ("COPY", "")
    told = {name: each.shown for name, each in config.settings.items() if name.startswith("environment")}
    digest = hashlib.sha256(b'"secret"').hexdigest()
    assert told["environment A"] == f"sha256:{digest}" and "environment B, without a value" in told


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(PLAIN)[:-1] + ', "Config": {"Entrypoint": ["/evil"]}}',
        '{"config": {"Entrypoint": ["/shown"], "entrypoint": ["/started"]}}',
        '{"config": {"Entrypoint": ["/shown"], "Entrypoint": ["/started"]}}',
        '{"config": {"Cmd": ["/shown"], "\u017f": 1}}',
        '{"rootfs": {"diff_ids": [], "DIFF_IDS": ["x"]}}',
    ],
)
def test_two_spellings_of_one_key_are_refused(text: str) -> None:
    """An engine takes the last, in whatever case: another program would start than the one that is shown."""
    with pytest.raises(Malformed):
        read_config(text)


def test_a_key_in_another_case_counts_as_it_does_for_the_engine() -> None:
    assert read_config('{"CONFIG": {"ENTRYPOINT": ["/run"]}}').entrypoint == ("/run",)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", "null", '{"config": []}', '{"config": {"Entrypoint": "sh -c"}}', '{"config": {"Cmd": [1]}}',
        '{"config": {"Labels": []}}', '{"config": {"Labels": {"a": 1}}}', '{"rootfs": 1}', '{"history": [1]}',
        '{"history": {}}', '{"architecture": 1}', '{"config": {"Volumes": 3}}', '{"config": {"Env": {}}}',
        json.dumps({"rootfs": {"diff_ids": ["x"] * 600}}),
        json.dumps({"config": {"Labels": dict.fromkeys(map(str, range(300)), "")}}),
        json.dumps({"a": "x" * 300_000}), "[" * 100_000, '"\\ud800"', '{"a": NaN}',
    ],
)  # fmt: skip
def test_a_configuration_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        read_config(text)


@pytest.mark.parametrize(
    ("plain", "says"),
    [
        (PLAIN | {"architecture": "arm64"}, "made for linux/arm64"),
        (PLAIN | {"os": "windows"}, "made for windows/amd64"),
        ({"rootfs": PLAIN["rootfs"]}, "made for /"),
        (changed(Entrypoint=None, Cmd=[]), "no program"),
        (changed(Volumes={"/data": {}}), "volume"),
    ],
)
def test_an_unfit_image_says_why(plain: dict[str, Any], says: str) -> None:
    reasons = unfit(facts(plain), "amd64")
    assert any(says in reason.detail for reason in reasons)
    assert {reason.code for reason in reasons} == {Code.IMAGE_NOT_APPROVED}


def test_a_fit_image_has_nothing_against_it() -> None:
    assert unfit(facts(), "amd64") == []
    assert unfit(facts(changed(Entrypoint=None)), "amd64") == [], "a command alone is a program too"


def test_all_reasons_are_told_at_once() -> None:
    bare = {"architecture": "arm64", "os": "linux", "config": {"Volumes": {"/v": {}}}, "rootfs": PLAIN["rootfs"]}
    assert len(unfit(facts(bare), "amd64")) == 3


@pytest.mark.parametrize("text", ["\x1b[31m", "a\nb", "\u202eevil", "\u200b", "\x00", "\ud800", "\u2028"])
def test_what_would_move_or_hide_is_made_visible(text: str) -> None:
    assert printable(text).isprintable() and "\\" in printable(text) and printable(printable(text)) == printable(text)


def test_a_long_text_is_cut_with_a_mark() -> None:
    assert printable("x" * 1000, 10) == "x" * 9 + "…"
