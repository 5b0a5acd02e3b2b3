"""python -m tests.install up|exec|put|get|reboot|down NAME …: a systemd machine to try something in."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.install.files import changes
from tests.install.machine import Machine, found
from tests.install.roots import SYSTEMS, CannotMake


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.install", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="make one and boot it")
    up.add_argument("name")
    up.add_argument("--system", choices=sorted(SYSTEMS), default="debian-12")
    up.add_argument("--bare", action="store_true", help="no container engine, no python3-venv")
    execute = verbs.add_parser("exec", help="a command as root in it")
    execute.add_argument("name")
    execute.add_argument("words", nargs=argparse.REMAINDER)
    for verb in ("put", "get"):
        copy = verbs.add_parser(verb, help="copy a file or folder in, or a file out")
        copy.add_argument("name")
        copy.add_argument("source")
        copy.add_argument("target")
    for verb, text in (("reboot", "off and on again"), ("down", "off, and gone"), ("changes", "files changed in it")):
        verbs.add_parser(verb, help=text).add_argument("name")
    given = parser.parse_args()
    try:
        return act(given)
    except CannotMake as why:
        print(f"error: {why}", file=sys.stderr)
        return 5


def act(given: argparse.Namespace) -> int:
    if given.verb == "up":
        seconds = Machine(given.name, SYSTEMS[given.system], engine=not given.bare).start()
        print(f"up after {seconds:.1f} s", file=sys.stderr)
        return 0
    machine = found(given.name)
    if given.verb == "exec":
        words = given.words[1:] if given.words[:1] == ["--"] else given.words
        done = machine.run(*words, check=False)
        sys.stdout.write(done.stdout)
        sys.stderr.write(done.stderr)
        return done.returncode
    if given.verb == "put":
        machine.put(Path(given.source), given.target)
    elif given.verb == "get":
        machine.get(given.source, Path(given.target))
    elif given.verb == "reboot":
        print(f"up after {machine.reboot():.1f} s", file=sys.stderr)
    elif given.verb == "changes":
        for path, entry in sorted(changes(machine).items()):
            print(f"{entry}\t{path}")
    else:
        machine.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
