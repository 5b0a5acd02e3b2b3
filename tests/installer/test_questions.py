"""What is asked, from where it is answered, and what is no answer."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.install.questions import QUESTIONS, collect, explain
from deploy.install.talk import Fault
from tests.installer.ground import KEY

GIVEN = {
    "site": ["st-anna"], "hub": ["hub.north.test:8443"], "committee_key": [KEY], "steward_key": [KEY],
    "source_root": ["/srv/export"],
}  # fmt: skip


def person(*lines: str) -> Callable[[str], str]:
    rest = list(lines)
    return lambda _words: rest.pop(0) + "\n"


def test_a_person_is_asked_who_this_is_which_hub_whom_it_trusts_and_where_images_lie() -> None:
    asked: list[str] = []

    def answer(words: str) -> str:
        asked.append(words)
        lines = ["st-anna", "hub.north.test:8443", "12" * 32, "", KEY, f"{KEY} {'cd' * 32}", "/srv/a /srv/b"]
        return lines[len(asked) - 1]

    answers = collect("node", {}, None, answer)
    assert len(asked) == 7 and "[later]" in asked[3]
    assert answers["hub_key"] == ("12" * 32,) and "witness_key" not in answers
    assert answers["steward_key"] == (KEY, "cd" * 32) and answers["source_root"] == ("/srv/a", "/srv/b")


def test_what_is_no_answer_is_asked_again() -> None:
    slips = ("Sankt Anna", "", "st-anna", "hub.example.org:1", "[2001:db8::1]:8443")
    lines = (*slips, "0" * 64, KEY, KEY, KEY, KEY, "export", "/srv")
    answers = collect("node", {}, None, person(*lines))
    assert answers["site"] == ("st-anna",) and answers["hub"] == ("[2001:db8::1]:8443",)


def test_a_flag_counts_more_than_the_file_and_the_file_more_than_the_default(tmp_path: Path) -> None:
    file = tmp_path / "answers.toml"
    file.write_text(f'name = "north"\nhost = ["a.test", "b.test"]\nport = 9443\ncommittee_key = "{KEY}"\n')
    answers = collect("hub", {"name": ["south"]}, file, None)
    assert answers["name"] == ("south",) and answers["host"] == ("a.test", "b.test")
    assert answers["port"] == ("9443",) and answers["listen"] == ("0.0.0.0",)


def test_a_key_may_be_the_file_that_holds_it_and_never_a_private_one(tmp_path: Path) -> None:
    (tmp_path / "steward.key.pub").write_text(f"{KEY}\n")
    (tmp_path / "steward.key").write_text("ab" * 32)
    answers = collect("node", {**GIVEN, "steward_key": [str(tmp_path / "steward.key.pub")]}, None, None)
    assert answers["steward_key"] == (KEY,)
    with pytest.raises(Fault, match="private key"):
        collect("node", {**GIVEN, "steward_key": [str(tmp_path / "steward.key")]}, None, None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("site", "example-hospital"), ("site", "St Anna"), ("site", "-x"), ("hub", "hub"), ("hub", "hub:0"),
        ("hub", "hub.example.org:8443"), ("hub", "a b:1"), ("committee_key", "0" * 64), ("committee_key", "ab"),
        ("committee_key", "no/such.pub"), ("source_root", "export"), ("source_root", "/srv/../etc"),
        ("source_root", "/srv/\nx"), ("sentinel", "sha256:" + "0" * 64), ("engine", "tcp://1.2.3.4:2375"),
    ],
)  # fmt: skip
def test_placeholders_and_slips_are_no_answers(name: str, text: str) -> None:
    with pytest.raises(Fault, match=f"--{name.replace('_', '-')}") as raised:
        collect("node", {**GIVEN, name: [text]}, None, None)
    assert raised.value.code == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('sites = "x"\n', "unknown answer sites"),
        ("site =", "not TOML"),
        ("site = true\n", "a text or a list"),
        (None, "read"),
    ],
)  # fmt: skip
def test_a_file_of_answers_that_is_none_is_told(tmp_path: Path, text: str | None, says: str) -> None:
    file = tmp_path / "answers.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(Fault, match=says):
        collect("node", {}, file, None)


def test_nobody_at_the_keyboard_is_told_everything_that_is_missing() -> None:
    with pytest.raises(Fault, match="not answered: --site, --hub, --committee-key, --steward-key, --source-root"):
        collect("node", {}, None, None)


@pytest.mark.parametrize("role", ["node", "hub"])
def test_the_help_of_answers_names_each(role: str) -> None:
    told = explain(role)  # type: ignore[arg-type]
    plain = tomllib.loads(told)
    for question in QUESTIONS[role]:  # type: ignore[index]
        needed = question.needed and not question.default
        assert (question.name in plain) == needed and f"{question.name} = " in told
    optional = "\n".join(line.removeprefix("# ") for line in told.splitlines() if " = " in line)
    assert set(tomllib.loads(optional)) == {question.name for question in QUESTIONS[role]}  # type: ignore[index]


def test_the_help_of_answers_filled_in_is_a_file_of_answers(tmp_path: Path) -> None:
    file, lines = tmp_path / "answers.toml", explain("node").splitlines()
    file.write_text("\n".join(lines))
    with pytest.raises(Fault, match="--site"):
        collect("node", {}, file, None)
    filled = [f"{line.split(' = ')[0]} = {list(GIVEN[line.split(' = ')[0]])}" if line.split(" = ")[0] in GIVEN else line
              for line in lines]  # fmt: skip
    file.write_text("\n".join(filled))
    assert {name: list(values) for name, values in collect("node", {}, file, None).items()} == GIVEN
