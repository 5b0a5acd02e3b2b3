"""`install.sh`: the words of its command line, and what each of them does."""

from __future__ import annotations

import argparse
import os
import re
import signal
import tomllib
from pathlib import Path

from . import layout
from .checks import Finding, Wanted, check, failed, show
from .config_text import answered
from .config_text import text as config_text
from .databases import state_is_known
from .install import Wish, install, not_installed
from .journal import Installed, Journal, alone, merged, read_installed, record, recover
from .machine import Machine
from .opening import clear_work, look, opened
from .questions import QUESTIONS, Answers, collect, explain, given, host_and_port, keyboard
from .rehearsal import Rehearsal
from .sources import Source
from .talk import NOT_NOW, REFUSED, USAGE, Fault, complain, say
from .uninstall import uninstall
from .units import Units
from .upgrade import rollback, upgrade

_VERBS = "node, hub, upgrade, rollback or uninstall"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        if message.endswith("are required: WORD"):
            message = f"what to do is missing: {_VERBS}"
        elif slip := re.match(r"argument WORD: invalid choice: '(.*?)'", message):
            message = f"{slip[1]} is nothing that this does: {_VERBS}"
        raise Fault(message, "install.sh --help", USAGE)


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog="install.sh", add_help=False, allow_abbrev=False)
    words = top.add_subparsers(dest="word", required=True, parser_class=_Parser, metavar="WORD")
    for role in layout.ROLES:
        one = words.add_parser(role, add_help=False, allow_abbrev=False)
        one.add_argument("--check", action="store_true")
        one.add_argument("--json", action="store_true")
        one.add_argument("--answers", type=Path)
        one.add_argument("--help-answers", action="store_true")
        one.add_argument("--no-start", action="store_true")
        for question in QUESTIONS[role]:
            one.add_argument(question.flag, action="append", default=[], dest=f"answer_{question.name}")
        _common(one, "bundle", "dry-run")
    _common(words.add_parser("upgrade", add_help=False, allow_abbrev=False), "bundle", "dry-run", "wait")
    _common(words.add_parser("rollback", add_help=False, allow_abbrev=False), "wait")
    gone = words.add_parser("uninstall", add_help=False, allow_abbrev=False)
    gone.add_argument("--keep-data", action="store_true")
    gone.add_argument("--destroy-data", action="store_true")
    _common(gone, "dry-run")
    return top


def _common(parser: argparse.ArgumentParser, *more: str) -> None:
    parser.add_argument("--root", type=Path, default=Path("/"))
    parser.add_argument("--yes", action="store_true")
    if "bundle" in more:
        parser.add_argument("--bundle", type=Path)
        parser.add_argument("--release-key", type=Path, action="append", default=[])
    if "dry-run" in more:
        parser.add_argument("--dry-run", action="store_true")
    if "wait" in more:
        parser.add_argument("--wait-for-jobs", type=float, default=60.0)


def main(words: list[str]) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        options = parser().parse_args(words)
        _run(options)
    except Fault as fault:
        complain(fault)
        return fault.code
    except KeyboardInterrupt:
        complain(Fault("interrupted", "what was done was taken back; running again is safe"))
        return NOT_NOW
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        complain(Fault(f"{error.strerror or type(error).__name__}{where}", "is the disk full, or read-only?"))
        return NOT_NOW
    return 0


def _run(options: argparse.Namespace) -> None:
    machine = Machine(options.root.resolve())
    if options.word in layout.ROLES and options.help_answers:
        print(explain(options.word))
        return
    if options.word in layout.ROLES and options.check:
        held = look(machine, options.bundle, options.release_key) if options.bundle else ()
        findings = check(machine, _wanted(machine, options, held))
        show(findings, as_json=options.json)
        _refuse_failed(findings)
        return
    if os.geteuid() != 0:
        raise Fault("you are not root", "run the same line with sudo")
    with alone(machine):
        if not getattr(options, "dry_run", False) and recover(machine):
            clear_work(machine)
        _WORDS[options.word](machine, options)


def _wanted(machine: Machine, options: argparse.Namespace, held: tuple[str, ...]) -> Wanted:
    """What to look for, as far as flags and file say it. `held`: the Debian packages of the bundle."""
    flags = _flags(options)
    port = hub = None
    if options.word == "hub":
        told = flags.get("port") or ["8443"]
        port = int(told[0]) if told[0].isdecimal() and 0 < int(told[0]) < 65536 else None
    elif flags.get("hub"):
        try:
            hub = host_and_port(flags["hub"][0])
        except ValueError:
            hub = None
    again = machine.at(layout.INSTALLED).exists()
    brings = tuple(sorted(set(not_installed(machine, held)) & {"docker.io", "podman"}))
    engine = flags["engine"][0] if flags.get("engine") else None
    return Wanted(options.word, hub, port, engine, bool(options.bundle), again=again, brings=brings)


def _flags(options: argparse.Namespace) -> dict[str, list[str]]:
    return {question.name: getattr(options, f"answer_{question.name}") for question in QUESTIONS[options.word]}


def _refuse_failed(findings: list[Finding]) -> None:
    if bad := failed(findings):
        raise Fault(f"{bad[0].what}: {bad[0].detail}", bad[0].cure or "see the table")


def _install(machine: Machine, options: argparse.Namespace) -> None:
    before = read_installed(machine)
    if before and before.role != options.word:
        raise Fault(f"a {before.role} is installed here", f"a {options.word} is a machine of its own", REFUSED)
    _answers_hold(machine, options)
    with opened(machine, options.bundle, options.release_key) as source:
        install_from(machine, options, source, before)


def _answers_hold(machine: Machine, options: argparse.Namespace) -> None:
    """Raise `Fault` for a slip in the answers before anything that takes long: one that is none, one that is missing
    where nobody can be asked, one that the configuration which is kept contradicts."""
    role: layout.Role = options.word
    path = layout.configuration(role)
    if not machine.at(path).exists():
        if keyboard() is None:
            collect(role, _flags(options), options.answers, None)
        return
    answers = given(role, _flags(options), options.answers)
    try:
        kept = answered(role, tomllib.loads(machine.text(path)))
    except tomllib.TOMLDecodeError:
        return  # the product says where it is broken
    for name, values in answers.items():
        if set(kept.get(name, values)) != set(values):
            there = ", ".join(kept[name])
            flag = f"--{name.replace('_', '-')}"
            hint = f"it is kept: change it in that file, and run this again without {flag}"
            raise Fault(f"{path} is there and says otherwise than {flag}: {there}", hint, REFUSED)


def install_from(machine: Machine, options: argparse.Namespace, source: Source, before: Installed | None) -> None:
    """Install a version, or see that it stands as it must. Raises `Fault`; the machine is then as it was."""
    role: layout.Role = options.word
    _answers_hold(machine, options)
    if before and before.version != source.version:
        word = f"{before.version} is installed, this is {source.version}"
        raise Fault(word, "install.sh upgrade changes versions", REFUSED)
    findings = check(machine, _wanted(machine, options, tuple(name for name, _path in source.packages)))
    show(findings)
    _refuse_failed(findings)
    state_is_known(machine, role)
    answers: Answers | None = None
    if not machine.at(layout.configuration(role)).exists():
        answers = collect(role, _flags(options), options.answers, keyboard())
        _ask_the_hub(machine, role, answers)
    wish = _wish(machine, options, role, source, answers)
    if options.dry_run:
        with Rehearsal(machine) as rehearsal:
            install(machine, wish, rehearsal)
        say("a dry run: nothing was changed")
        return
    previous, copy = (before.previous, before.copy) if before else (None, None)
    with Journal(machine) as journal:
        journal.ends(Installed(role, source.version, previous, copy))
        units = install(machine, wish, journal)
        made = merged(before.made if before else (), tuple(journal.made))
        changed = bool(journal.made)
        journal.do(record(Installed(role, source.version, previous, copy, made)))
    _tell(role, source.version, units, changed, options.no_start)


def _ask_the_hub(machine: Machine, role: layout.Role, answers: Answers) -> None:
    """What can only be looked at once it was answered: whether the hub is reached, whether the port is free."""
    wanted = Wanted(
        role, host_and_port(answers["hub"][0]) if role == "node" else None,
        int(answers["port"][0]) if role == "hub" else None,
    )  # fmt: skip
    findings = [each for each in check(machine, wanted) if each.what in ("dns", "hub", "port")]
    for each in findings:
        if each.state != "ok":
            say(f"{each.state}: {each.what}: {each.detail} -> {each.cure}")
    _refuse_failed(findings)


def _wish(
    machine: Machine, options: argparse.Namespace, role: layout.Role, source: Source, answers: Answers | None
) -> Wish:
    if answers is None:
        return Wish(role, source, None, start=not options.no_start)
    found = answers
    return Wish(
        role, source, lambda engine, sentinel: config_text(role, machine, found, engine, sentinel),
        (found.get("engine") or (None,))[0], (found.get("sentinel") or (None,))[0], not options.no_start,
    )  # fmt: skip


_NEXT = {
    "node": (
        "cloister node enrol: enrol this node at the hub (its two keys have to stand in [trust] of the configuration)",
        "cloister check: what stands, and what is missing",
    ),
    "hub": (
        "open the port above to the hospitals, and to nobody else",
        "give the hospitals the hub's two public keys (above) by another way than the bundle",
        "cloister hub node approve: let the first hospital in",
    ),
}


def _tell(role: layout.Role, version: str, units: Units, changed: bool, held: bool) -> None:
    say(f"cloister {version}: {'installed' if changed else 'everything is as it must be; nothing was changed'}")
    say(f"configuration {layout.configuration(role)}, state {layout.state(role)}, program {layout.CURRENT}")
    say(f"services: {'systemctl start' if held else 'systemctl status'} {units.target}")
    say("firewall:")
    for line in units.firewall:
        say(f"  {line}")
    say("next:")
    for line in _NEXT[role]:
        say(f"  {line}")


def _upgrade(machine: Machine, options: argparse.Namespace) -> None:
    before = _must_be_installed(machine)
    with opened(machine, options.bundle, options.release_key) as source:
        findings = check(machine, Wanted(before.role, offline=source.offline, again=True))
        show(findings)
        _refuse_failed(findings)
        upgrade(machine, before, source, wait_s=options.wait_for_jobs, dry=options.dry_run)


def _rollback(machine: Machine, options: argparse.Namespace) -> None:
    rollback(machine, _must_be_installed(machine), wait_s=options.wait_for_jobs)


def _uninstall(machine: Machine, options: argparse.Namespace) -> None:
    if options.keep_data == options.destroy_data:
        raise Fault("what becomes of the data?", "--keep-data leaves it, --destroy-data shreds it", USAGE)
    before = _must_be_installed(machine)
    if options.destroy_data and not options.yes and not options.dry_run:
        ask = keyboard()
        if ask is None or ask(f"this destroys every key, dataset and record; type {before.role} to do it: ") != (
            f"{before.role}\n"
        ):
            raise Fault("not confirmed", "--yes confirms where nobody is asked", USAGE)
    uninstall(machine, before, destroy=options.destroy_data, dry=options.dry_run)


def _must_be_installed(machine: Machine) -> Installed:
    before = read_installed(machine)
    if before is None:
        raise Fault("nothing is installed here", "deploy/install.sh node, or hub", USAGE)
    return before


_WORDS = {
    "node": _install,
    "hub": _install,
    "upgrade": _upgrade,
    "rollback": _rollback,
    "uninstall": _uninstall,
}
