"""The command `cloister`."""

from __future__ import annotations

import os
import sys

import click
import typer

from mediator.errors import NotNow
from node.cli.app import for_words
from node.cli.output import fail, say
from node.host.disk_errors import is_full


def _words() -> tuple[str | None, str | None]:
    """The first two words of the command line, or the first of the one that a shell is completing."""
    if "_CLOISTER_COMPLETE" in os.environ:
        from node.cli.shell import typed

        return typed(), None
    first, second = [*sys.argv[1:3], None, None][:2]
    return first, second


def main() -> None:
    """Run the command line; every error ends here, as one line and an exit code."""
    command = typer.main.get_command(for_words(*_words()))
    try:
        result = command.main(prog_name="cloister", standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:  # nothing was asked: what could be
        say(error.format_message())
        code = 2
    except click.ClickException as error:  # wrong arguments: click's words name the option, never its value's source
        words = " ".join(error.format_message().split()).rstrip(".")
        say(f"error: {words[:1].lower()}{words[1:]}")
        say("hint: add --help to see what the command takes")
        code = 2
    except (KeyboardInterrupt, click.exceptions.Abort):
        say("error: interrupted")
        code = 130
    except BrokenPipeError:  # the reader of a pipe left; nothing to tell anyone
        code = 0
    except OSError as error:
        full = is_full(error)  # whatever was being written: files here are written whole or not at all
        code = fail(NotNow("the disk is full", hint="make room, then do it again") if full else error)
    except Exception as error:  # noqa: BLE001 - the edge: printed our way, the process ends with its code
        code = fail(error)
    sys.exit(code)
