"""Completion as a real bash asks for it, and manual pages that a real roff takes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer

from node.cli.app import application
from node.cli.shell import VARIABLE, Shell, pages

ROOT = typer.main.get_command(application())


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """`cloister` on a path of its own."""
    file = tmp_path / "cloister"
    file.write_text(f'#!/bin/sh\nexec {sys.executable} -m node.cli "$@"\n')
    file.chmod(0o755)
    return file


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["cloister", "au"], {"audit"}),
        (["cloister", "node", "enrol", ""], {"request", "install"}),
        (["cloister", "audit", "export", "--fo"], {"--form"}),
        (["cloister", "audit", "export", "--form", "s"], {"syslog"}),
    ],
)
def test_bash_is_offered_what_there_is(program: Path, typed: list[str], offered: set[str]) -> None:
    script = subprocess.run([program, "completion", "bash"], capture_output=True, text=True, check=True).stdout
    words = " ".join(f"'{word}'" for word in typed)
    asks = f"{script}\nCOMP_WORDS=({words}); COMP_CWORD={len(typed) - 1}; _cloister_completion cloister\n"
    asks += 'printf "%s\\n" "${COMPREPLY[@]}"'
    path = {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", asks], capture_output=True, text=True, check=True, env=os.environ | path)
    told = set(done.stdout.split())
    assert offered <= told and "serve" not in told


@pytest.mark.parametrize("shell", Shell)
def test_every_shell_has_its_script(program: Path, shell: Shell) -> None:
    done = subprocess.run([program, "completion", shell.value], capture_output=True, text=True, check=True)
    assert VARIABLE in done.stdout and "cloister" in done.stdout


def test_there_is_a_page_for_each_group_and_in_it_every_command_and_option() -> None:
    made = pages()
    assert isinstance(ROOT, click.Group)
    assert set(made) == {"cloister.1", *(f"cloister-{name}.1" for name in ROOT.commands)}
    for name, group in ROOT.commands.items():
        page = made[f"cloister-{name}.1"].replace("\\-", "-")
        for path, command in _all(group, f"cloister {name}"):
            assert f'.SH "{path.upper()}"' in page
            for parameter in command.params:
                if isinstance(parameter, click.Option) and not parameter.hidden:
                    assert parameter.opts[0] in page


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff on this machine")
def test_roff_finds_no_fault_in_a_page(tmp_path: Path) -> None:
    for name, text in pages().items():
        (tmp_path / name).write_text(text)
        words = ["groff", "-man", "-Tutf8", "-ww", "-z", name]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stderr == "", name


def _all(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    found = [(path, command)]
    for name, below in command.commands.items() if isinstance(command, click.Group) else ():
        found += [] if below.hidden else _all(below, f"{path} {name}")
    return found
