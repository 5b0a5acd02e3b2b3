"""`cloister completion`, `cloister man`: what a shell and `man` are given, made from the commands themselves."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import click
import typer

from node.cli import plain_help
from node.cli.files import replace_file
from node.cli.output import say

VARIABLE = "_CLOISTER_COMPLETE"
# how bash and zsh, and fish, hand over what was typed
_TYPED = ("COMP_WORDS", "_TYPER_COMPLETE_ARGS")


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="the shell that is to complete commands")]) -> None:
    """Print what a shell needs to complete commands and options; its file is the shell's to say.

    For bash: cloister completion bash > /etc/bash_completion.d/cloister
    """
    from typer._completion_shared import get_completion_script

    script = get_completion_script(prog_name="cloister", complete_var=VARIABLE, shell=shell.value)
    sys.stdout.write(script.strip() + "\n")


def man(
    out: Annotated[Path, typer.Option("--out", help="the folder of section 1, for example /usr/local/share/man/man1")],
) -> None:
    """Write the manual pages: one for the whole, one for each group of commands."""
    for name, text in pages().items():
        replace_file(out / name, text)
        say(f"wrote {out / name}")


def typed() -> str | None:
    """While a shell asks for completion, the first word behind `cloister`; it chooses what is imported."""
    from typer._completion_classes import completion_init

    completion_init()  # typer answers in its own script's form, click in another
    words = next((os.environ[name].split() for name in _TYPED if name in os.environ), [])
    return words[1] if len(words) > 1 else None


def pages() -> dict[str, str]:
    """File name and roff text of every manual page."""
    from node.cli.app import application

    root = typer.main.get_command(application())
    assert isinstance(root, click.Group)
    groups = {f"cloister-{name}": each for name, each in root.commands.items() if not each.hidden}
    made = {"cloister.1": _page("cloister", root, list(groups))}
    return made | {f"{name}.1": _page(name, each, []) for name, each in groups.items()}


def _page(name: str, command: click.Command, others: list[str]) -> str:
    path = tuple(name.split("-", 1))
    lines = [
        f'.TH "{name.upper()}" "1" "" "cloister" "Cloister"',
        ".SH NAME",
        rf"{_text(name)} \- {_text(plain_help.summary(command).rstrip('.'))}",
    ]
    for words, each in [(path, command)] if others else _commands(path, command):
        lines += _described(words, each)
    if others:
        lines += [".SH SEE ALSO", ",\n".join(f".BR {each} (1)" for each in others).replace(",\n", "\n")]
    return "\n".join(lines) + "\n"


def _commands(path: tuple[str, ...], command: click.Command) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    for name, below in command.commands.items() if isinstance(command, click.Group) else ():
        if not below.hidden:
            yield from _commands((*path, name), below)


def _described(words: tuple[str, ...], command: click.Command) -> list[str]:
    context = click.Context(command, info_name=" ".join(words))
    lines = [f'.SH "{_text(" ".join(words).upper())}"']
    lines += [rf"\fB{_text(' '.join(words))}\fR {_text(' '.join(command.collect_usage_pieces(context)))}", ".PP"]
    lines += [_text(line) if line.strip() else ".PP" for line in (command.help or "").strip().splitlines()]
    for title, records in plain_help.sections(command, context):
        lines.append(f".SS {title}")
        for name, description in records:
            lines += [".TP", rf"\fB{_text(name)}\fR", _text(description)]
    return lines


def _text(words: str) -> str:
    """Words as roff takes them, in ASCII: no line begins a request, no dash becomes a typographic one."""
    escaped = words.strip().replace("\\", r"\e").replace("-", r"\-")
    plain = re.sub(r"[^\x00-\x7f]", lambda found: f"\\[u{ord(found[0]):04X}]", escaped)
    return re.sub(r"^([.'])", r"\\&\1", plain)
