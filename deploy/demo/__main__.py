"""`deploy/demo.sh` ends here: arguments, signals, the report, the exit code."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

from deploy.demo import closing, keeping, record, results, table
from deploy.demo.arguments import REPOSITORY, arguments
from deploy.demo.failures import DemoFailed, Interrupted
from deploy.demo.show import FAILED, Screen
from deploy.demo.story import Story
from deploy.demo.workplace import UID_BASE, Workplace, choose_root
from deploy.driver.commands import CLOISTER, Commands


def main(words: list[str]) -> int:
    """Run the demo; returns the exit code."""
    given = arguments(words)
    signal.signal(signal.SIGTERM, _interrupt)
    os.umask(0o022)
    screen = Screen()
    try:
        as_root = os.geteuid() == 0
        root, why = choose_root(given.work, REPOSITORY, as_root=as_root)
        if given.stop:
            stopped = keeping.stop(root)
            screen.line(f"stopped {', '.join(stopped)}" if stopped else f"nothing of ours runs in {root}")
            return 0
        return perform(given, screen, Workplace(root, as_root=as_root, uid_base=_uid_base()), why)
    except DemoFailed as failed:
        screen.line(f"error: {failed.message}", "bold red")
        screen.line(f"hint: {failed.hint}")
        return failed.code


def perform(given: argparse.Namespace, screen: Screen, place: Workplace, why: str) -> int:
    """The whole demo in one folder. Whatever happens, what was started is ended (unless it is to be kept)."""
    if before := keeping.stop(place.root):
        screen.line(f"stopped what an earlier demo left running: {', '.join(before)}")
    place.clear_and_make()
    screen.record_to(place.logs / "terminal.log")
    for line in os.environ.pop("CLOISTER_DEMO_TALK", "").splitlines():
        screen.remember(line)
    screen.title("cloister: three hospitals and a hub train one model, and no image leaves", str(place.root))
    if why:
        screen.line(why, "yellow")
    for entry in given.spent:
        name, _, seconds = entry.partition("=")
        screen.add_seconds(name, float(seconds))
    hint = f"the logs are in {place.logs}"
    commands = Commands(CLOISTER, _environment(), place.logs / "commands.log", hint)
    story = Story(place, commands, screen, REPOSITORY, given.rounds)
    kept = False
    try:
        story.tell()
        if given.keep:
            kept = True
        else:
            with screen.phase("stop") as phase:
                story.stop()
                phase.summary = "hub and nodes have ended"
        story.search()
        return conclude(story, given, kept=kept)
    except (KeyboardInterrupt, Interrupted):
        kept = False
        screen.line(f"{FAILED} interrupted; stopping what was started. The logs are in {place.logs}", "bold red")
        return 130
    except BaseException:
        kept = False
        raise
    finally:
        if kept:
            keeping.write(place.root, story.services)
        else:
            story.stop()


def conclude(story: Story, given: argparse.Namespace, *, kept: bool) -> int:
    """Tables, report, page, and the last words."""
    report, screen, place = story.report, story.screen, story.place
    report.phases, report.processor = screen.seconds, screen.processor
    report.seconds_total = time.time() - given.began
    for each in table.tables(report):
        screen.show(each)
    written = results.write(place, report)
    if story.search_again([*written, place.logs / "terminal.log"]):
        results.write(place, report)
    for line in closing.closing(report.plain()):
        screen.line(line)
    if kept:
        screen.line(f"the hub listens at {story.hub.address}; its folder is {place.hub}")
        for site, hospital in story.hospitals.items():
            screen.line(f"{site}: cloister node status --config {hospital.config}")
        screen.line(f"end it with: deploy/demo.sh --stop --work {place.root}", "bold")
    good = not report.exit_code()
    if given.docs and good:
        changed = ", ".join(str(path.relative_to(REPOSITORY)) for path in record.put(report.plain()))
        screen.line(f"put into the documents: {changed}")
    word = "every promise kept" if good else "NOT every promise was kept"
    screen.line(f"{word} · {report.seconds_total:.0f} s · read on:", "bold green" if good else "bold red")
    screen.line(str(place.page), "bold")
    return report.exit_code()


def _environment() -> dict[str, str]:
    """What our programs are told of ours: nothing that belongs to the person who runs the demo."""
    kept = ("PATH", "LANG", "LC_ALL", "TMPDIR", "DOCKER_HOST", "HOME")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"PYTHONUNBUFFERED": "1"}


def _uid_base() -> int:
    return int(os.environ.get("CLOISTER_DEMO_UID_BASE", UID_BASE))


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
