"""Tells the story on each system asked for, and writes what was measured; the words are in `story.sh --help`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from deploy.driver.failures import DriverFailed
from tests.install.bare import install_bare
from tests.install.online import install_online
from tests.install.releases import Workshop
from tests.install.roots import CACHE, SYSTEMS, CannotMake, System, root
from tests.install.story import BROKEN, FIRST, NEXT, Story, say


def tell(system: System, folder: Path, *, short: bool) -> dict[str, Any]:
    """One system's story with releases of its own. Raises `CannotMake`, or what a chapter found wrong."""
    root(system, engine=True)
    workshop = Workshop(folder / "releases", system)
    story = Story(system, workshop, folder, jobs=not short, short=short)
    for version in (FIRST, NEXT, BROKEN):
        story.bundles[version] = workshop.bundle(version, broken=version == BROKEN, bare=version == FIRST and not short)
        say(f"{system.name}: bundle {version}, {story.bundles[version].stat().st_size >> 20} MiB")
    return story.tell()


def bare(system: System, folder: Path) -> dict[str, Any]:
    """The first release again, on a server that has nothing: it is the one with the Debian packages."""
    workshop = Workshop(folder / "releases", system)
    (bundle,) = (workshop.folder / "bundles").glob(f"cloister-{FIRST}-*.bundle")
    return install_bare(system, bundle, workshop.public_key)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/install/story.sh", allow_abbrev=False)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--system", choices=sorted(SYSTEMS), action="append")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--online", action="store_true")
    given = parser.parse_args()
    found: list[dict[str, Any]] = []
    worst = 0
    for name in given.system or list(SYSTEMS):
        with tempfile.TemporaryDirectory(prefix="cloister-story-", dir="/var/tmp") as folder:
            try:
                told = tell(SYSTEMS[name], Path(folder), short=given.short)
                if not given.short:
                    told |= bare(SYSTEMS[name], Path(folder))
                if given.online:
                    told |= install_online(SYSTEMS[name])
            except CannotMake as why:
                say(f"error: {name}: {why}")
                told, worst = {"machine": name, "cannot_be_made": str(why)}, max(worst, 5)
            except (AssertionError, DriverFailed, OSError) as error:
                traceback.print_exc()
                told, worst = {"machine": name, "failed": str(error)[:2000]}, 1
        found.append(told)
        write(given.json, found)
    return worst


def write(file: Path | None, found: list[dict[str, Any]]) -> None:
    """After each system, so that what one told is kept whatever the next does."""
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
