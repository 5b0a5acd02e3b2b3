"""`cloister node job`: the queue and what is in it, one job's progress, its end, what it printed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mediator.images import printable
from mediator.jobs import TERMINAL
from node.cli.admin import client_for, load, reach
from node.cli.id_prefix import complete
from node.cli.options import Json, NodeConfig, SignWith
from node.cli.output import Rows, data, say, show, table, talk
from node.ipc import jobs as words
from node.ipc.messages import Empty

if TYPE_CHECKING:
    from node.ipc.channel import Client

app = typer.Typer(no_args_is_help=True)

Job = Annotated[str, typer.Argument(help="the job, as `job list` names it, or the beginning of its name")]
LOOK_S = 1.0
# a line of a program's output that is longer was not meant for people
MAX_LINE = 2000
_ENDED = {state.value for state in TERMINAL} | {"released"}


@app.command("list")
def list_jobs(
    config: NodeConfig,
    watch: Annotated[bool, typer.Option("--watch", help="until interrupted: the table as it changes")] = False,
    as_json: Json = False,
) -> None:
    """The newest tasks: where each stands in the queue and why, its GPUs, how far it is, how it ended."""
    with client_for(reach(config), words.JOBS) as client:
        if watch and not as_json:
            _watch(client)
            return
        items = client.call(words.JOBS, Empty())
    show(list(items), as_json=as_json, table=_table(items))


@app.command("show")
def show_job(
    config: NodeConfig,
    job: Job,
    follow: Annotated[bool, typer.Option("--follow", help="with a bar, until it has ended")] = False,
    as_json: Json = False,
) -> None:
    """One task: its state, why it waits and its place in the line, its GPUs, its progress, what it has used."""
    with client_for(reach(config), words.JOB_SHOW) as client:
        job = _whole(client, job)

        def ask() -> words.JobLine:
            return client.call(words.JOB_SHOW, words.JobId(job))

        answer = _follow(ask) if follow and not as_json else ask()
    show(answer, as_json=as_json)


@app.command("stop")
def stop_job(config: NodeConfig, job: Job, key: SignWith = None) -> None:
    """End a task now, whether it waits or computes. The hub is told that it was stopped, and not by whom."""
    with client_for(reach(config), words.JOB_STOP, key=key) as client:
        job = _whole(client, job, acts=True)
        client.call(words.JOB_STOP, words.JobId(job))
    say(f"{job} is being stopped")


@app.command("logs")
def logs(
    config: NodeConfig,
    job: Job,
    follow: Annotated[bool, typer.Option("--follow", help="go on until its container ends")] = False,
    key: SignWith = None,
) -> None:
    """What a task's container printed, all its rounds. For who may open the engine's socket; who asks is written down.

    It may hold patients' data and never leaves the hospital. Control characters are shown as escapes.
    """
    from containers.engine import ContainerEngine
    from containers.job_log import job_log
    from node.broker.process import engine_site

    loaded = load(config)
    with client_for(loaded, words.JOB_LOGS, key=key) as client:
        job = _whole(client, job)
        sandbox = client.call(words.JOB_LOGS, words.JobId(job)).sandbox
    for line in job_log(ContainerEngine(loaded.engine.socket), engine_site(loaded), sandbox, follow=follow):
        sys.stdout.write(readable(line) + "\n")
        sys.stdout.flush()


def _whole(client: Client, job: str, *, acts: bool = False) -> str:
    return complete(job, (line.job for line in client.call(words.JOBS, Empty())), "job", acts=acts)


def readable(line: bytes) -> str:
    """A stranger's line for a terminal: no escape sequence, no control or direction character survives."""
    return printable(line.rstrip(b"\r").decode("utf-8", "replace").expandtabs(), MAX_LINE)


def standing(line: words.JobLine) -> str:
    """A job's state in a word or two: where it waits, and why."""
    if line.wait:
        place = f", place {line.place}" if line.place else ""
        return f"{line.state} ({line.wait.replace('_', ' ')}{place})"
    return line.state


def _table(items: Sequence[words.JobLine]) -> Rows:
    columns = ("job", "run", "round", "task", "state", "gpus", "progress", "code")
    rows = (
        (j.job, j.run, j.round, j.kind, standing(j), " ".join(j.gpus), f"{j.fraction:.0%}", j.code or "") for j in items
    )
    return table(columns, rows)


def _watch(client: Client) -> None:
    if not data.is_terminal:
        said: dict[str, str] = {}
        while True:
            for line in reversed(client.call(words.JOBS, Empty())):
                if said.get(line.job) != (now := standing(line)):
                    said[line.job] = now
                    print(f"{line.job} {line.run} {now}", flush=True)  # noqa: T201 - data, a line per change
            time.sleep(LOOK_S)
    from rich.live import Live

    with Live(_table(client.call(words.JOBS, Empty())).fitted(), console=data.console, auto_refresh=False) as live:
        while True:
            time.sleep(LOOK_S)
            live.update(_table(client.call(words.JOBS, Empty())).fitted(), refresh=True)


def _follow(ask: Callable[[], words.JobLine]) -> words.JobLine:
    """A bar on a terminal, a line per change of state elsewhere; the job as it ended."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        console=talk.console,
    )
    said = ""
    with bar if talk.is_terminal else Progress(disable=True):
        shown = bar.add_task("", total=1.0)
        while (line := ask()).state not in _ENDED:
            bar.update(shown, description=standing(line), completed=line.fraction)
            if not talk.is_terminal and standing(line) != said:
                said = standing(line)
                say(f"{line.job} {said}")
            time.sleep(LOOK_S)
        bar.update(shown, description=standing(line), completed=line.fraction)
    return line
