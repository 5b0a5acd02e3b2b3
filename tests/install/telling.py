"""Tells the story on each system asked for, and writes what was measured; the words are in `story.sh --help`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from deploy.driver.failures import DriverFailed
from tests.install.bare import install_bare
from tests.install.online import install_online
from tests.install.releases import Workshop
from tests.install.roots import CACHE, SYSTEMS, CannotMake, System, root
from tests.install.story import BROKEN, FIRST, JOBLESS, NEXT, Story, say

DEFECTS = {BROKEN: "core", JOBLESS: "jobs"}


def tell(system: System, folder: Path, told: dict[str, Any], save: Callable[[], None], *, short: bool) -> None:
    """One system's story with releases of its own, into `told`. Raises `CannotMake`, or what a chapter found wrong."""
    root(system, engine=True)
    workshop = Workshop(folder / "releases", system)
    story = Story(system, workshop, folder, jobs=not short, short=short, figures=told, save=save)
    for version in (FIRST, NEXT, BROKEN, *(() if short else (JOBLESS,))):
        began = time.monotonic()
        story.bundles[version] = workshop.bundle(
            version, defect=DEFECTS.get(version, ""), bare=version == FIRST and not short
        )
        size = story.bundles[version].stat().st_size >> 20
        say(f"{system.name}: bundle {version}, {size} MiB, {time.monotonic() - began:.1f} s")
    story.tell()


def bare(system: System, folder: Path, told: dict[str, Any]) -> None:
    """The first release again, on a server that has nothing: it is the one with the Debian packages."""
    workshop = Workshop(folder / "releases", system)
    made = [next((workshop.folder / "bundles").glob(f"cloister-{version}-*.bundle")) for version in (FIRST, NEXT)]
    told |= install_bare(system, made[0], made[1], workshop.public_key)


def online(system: System, told: dict[str, Any]) -> None:
    """Where no package index answers from here, the story says so and goes on."""
    try:
        told |= install_online(system)
    except CannotMake as why:
        say(f"{system.name}: not installed online: {why}")
        told["online_cannot"] = str(why)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/install/story.sh", allow_abbrev=False)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--system", choices=sorted(SYSTEMS), action="append")
    parser.add_argument("--short", action="store_true")
    given = parser.parse_args()
    found: list[dict[str, Any]] = []
    worst = 0
    for name in given.system or list(SYSTEMS):
        with tempfile.TemporaryDirectory(prefix="cloister-story-", dir="/var/tmp") as folder:
            told: dict[str, Any] = {"machine": name}
            try:
                tell(
                    SYSTEMS[name],
                    Path(folder),
                    told,
                    partial(write, given.json, [*found, told]) if given.json else lambda: None,
                    short=given.short,
                )
                if not given.short:
                    bare(SYSTEMS[name], Path(folder), told)
                    online(SYSTEMS[name], told)
            except CannotMake as why:
                say(f"error: {name}: {why}")
                told["cannot_be_made"], worst = str(why), max(worst, 5)
            except (AssertionError, DriverFailed, OSError, subprocess.SubprocessError) as error:
                traceback.print_exc()
                told["failed"], worst = str(error)[:2000], 1
        found.append(told)
        write(given.json, found)
    return worst


def write(file: Path | None, found: list[dict[str, Any]]) -> None:
    """After each system and chapter, so that what was told is kept whatever comes next; to a file, or at the end."""
    figures = {
        "machines": found, "processors": os.cpu_count(), "kernel": platform.release(), "cache": str(CACHE),
    }  # fmt: skip
    text = json.dumps(figures, indent=1) + "\n"
    if file is None:
        print(text, end="")
    else:
        file.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
