"""Documents fail when they drift: commands, files, tables and pictures named in prose are held against the code."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import typer

from mediator import errors, imports, jobs
from node.cli.app import application

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "deploy" / "docs").rglob("*.md")])
# what stands in a state or work folder, not in the repository
_ELSEWHERE = ("demo-work/",)


def test_there_are_pages() -> None:
    assert {"README.md", "ARCHITECTURE.md", "CHANGELOG.md", "threat-model.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_a_page_exists(page: Path) -> None:
    root = typer.main.get_command(application())
    for words in re.findall(r"`cloister ([a-z][^`]*)`", page.read_text("utf-8")):
        command: click.Command = root
        for word in words.split():
            name = word.strip("…,")
            if not isinstance(command, click.Group) or not name:
                break
            if name.startswith("-") and command.invoke_without_command:  # a group that is a command itself
                break
            assert name in command.commands, f"{page.name}: cloister {words}"
            command = command.commands[name]
        for option in re.findall(r"--[a-z-]+", words):
            known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
            assert option in known, f"{page.name}: cloister {words}: no {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_on_a_page_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    tops = "|".join(("deploy", "mediator", "containers", "federation", "durable", "node", "tests", "requirements"))
    for name in re.findall(rf"`((?:{tops})/[\w./-]*)`", text):
        assert (ROOT / name).exists(), f"{page.name} names {name}"
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not link.startswith(("http", *_ELSEWHERE)):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_how_to_add_something_is_told_of_a_verb_a_source_a_process_a_page_and_a_permit_field() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    told = text[text.index("## How to add something") :].split("\n## ")[0]
    assert re.findall(r"### How to add a (.*)", told) == ["staff verb", "source", "process", "page", "permit field"]
    named = re.findall(r"`([\w/]+\.py)` \(`(\w+)`\)", told)
    assert len(named) >= 6
    for file, name in named:
        assert re.search(rf"^ *(class|def) {name}\b", (ROOT / file).read_text("utf-8"), re.MULTILINE), (file, name)


def test_the_picture_of_a_jobs_states_is_the_table() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    assert f"```mermaid\n{jobs.mermaid()}```" in text


def test_the_pictures_of_an_imports_and_a_studys_states_are_the_tables() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    for picture in (imports.mermaid(), imports.study_mermaid()):
        assert f"```mermaid\n{picture}```" in text


def test_the_error_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    listed = dict(re.findall(r"(\w+)\s+([a-z_]+)\s+\d\s", errors.__doc__))
    ours = {
        cls.__name__: cls.code
        for cls in [errors.CloisterError, *_subclasses(errors.CloisterError)]
        if cls.__module__ == "mediator.errors"
    }
    assert listed == ours


def test_every_error_has_an_exit_code_of_the_list() -> None:
    for cls in _subclasses(errors.CloisterError):
        assert cls.exit_code in (1, 2, 3, 4, 5), cls


def test_the_exit_codes_in_readme_are_those_of_the_help() -> None:
    codes = r"0 done, 1 our defect, 2 wrong usage, 3 refused by a rule, 4 integrity broken, 5 not now \(safe to retry\)"
    assert re.search(codes, (ROOT / "README.md").read_text("utf-8"))
    assert re.search(codes, " ".join((typer.main.get_command(application()).help or "").split()))


def test_pages_name_no_registry_and_no_machine() -> None:
    for page in PAGES:
        assert not re.search(r"https?://(?!127\.0\.0\.1|localhost)", page.read_text("utf-8")), page.name


def _subclasses(cls: type[errors.CloisterError]) -> list[type[errors.CloisterError]]:
    return [each for sub in cls.__subclasses__() for each in (sub, *_subclasses(sub))]
