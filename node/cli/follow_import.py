"""An import as the person who waits for it sees it: how far it is, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import typer

from mediator.errors import NotNow, UsageFault
from node.cli.output import say, show, talk
from node.ipc import imports

_INSTANCES = "instances_excluded."
_STAGES = {
    "take_in": "taking in",
    "deidentify": "de-identifying",
    "hand_over": "handing over",
    "forget": "destroying quarantine",
}
_GOES_ON = "it goes on all the same; see: cloister node dataset imports"


def follow(news: Iterator[imports.IngestHappened]) -> imports.IngestHappened:
    """A bar on a terminal, a line for each stage elsewhere; the last message."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    last: imports.IngestHappened | None = None
    stage = ""
    words = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*words, console=talk.console, disable=not talk.is_terminal, transient=True) as bars:
            bar = bars.add_task("waiting for intake", total=None)
            for last in news:
                if last.kind != "progress":
                    return last
                if last.stage != stage:
                    stage = last.stage
                    if not talk.is_terminal:
                        say(_STAGES.get(stage, stage))
                bars.update(bar, description=_STAGES.get(stage, stage), completed=last.done, total=last.total or None)
    except NotNow as fault:
        if last is None:
            raise
        raise NotNow(f"the node went away: {fault.message}", hint=_GOES_ON) from None
    raise NotNow("the node ended the answer before the import", hint=_GOES_ON)


def files_excluded(counts: Mapping[str, int]) -> dict[str, int]:
    """Of the counts of an import or a version: single files that were left out, by reason."""
    return {name.removeprefix(_INSTANCES): number for name, number in counts.items() if name.startswith(_INSTANCES)}


def tell_end(last: imports.IngestHappened, *, as_json: bool) -> None:
    """What became of an import. Raises where nothing was published; what waits for us ends with 1."""
    if last.kind in ("failed", "stopped"):
        words = f"nothing was published: {last.error}"
        raise NotNow(words, hint="give the order again") if last.again else UsageFault(words, hint=last.hint)
    answer: dict[str, Any] = {
        "order": last.order,
        "dataset_version": last.dataset_version,
        "studies_in": last.counts.get("studies_in", 0),
        "studies_published": last.counts.get("studies", 0),
        "counts": dict(last.counts),
        "excluded": dict(last.excluded),
        "excluded_instances": files_excluded(last.counts),
        "studies_waiting": last.waiting,
    }
    show(answer, as_json=as_json)
    if last.kind == "waiting":
        say(f"nothing is published yet: {last.waiting} studies met a defect of this software, and wait, sealed")
        say("hint: report what intake's log says of our_defect (class and place, nothing of a file)")
        say(f"hint: {last.hint}: cloister node dataset retry, or give-up")
        raise typer.Exit(1)
    say(f"published {answer['studies_published']} of {answer['studies_in']} studies as {last.dataset_version}")
