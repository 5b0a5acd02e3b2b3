"""Every place where a command is given a name, found by walking the commands: a beginning will do, or why not."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import pytest

import node.cli
from mediator.errors import UsageFault
from node.cli.id_prefix import one_of
from tests.node.cli import audit_log
from tests.node.cli.test_audit_reading import RECORDS, Done, log, run
from tests.node.cli.test_help import ALL

__all__ = ["log", "run"]  # fixtures

# what is looked up, and may be named by its beginning
LOOKED_UP = {
    "version": ["node dataset withdraw"],
    "dataset": ["node permit accept"],
    "order": ["node dataset follow", "node dataset stop", "node dataset retry", "node dataset give-up"],
    "permit": ["node permit show", "node permit accept", "audit show", "audit export"],
    "project": ["audit show", "audit export"],
    "who": ["audit show", "audit export"],
    "restore": ["permit revocations"],
    "job": ["node job show", "node job stop", "node job logs"],
    "image": ["node image show", "node image diff", "node image approve", "node image withdraw", "job order"],
    "against": ["node image diff"],
    "run": ["node analysis start", "hub run show", "hub run export", "hub run stop", "hub run resume"],
    "file": ["node airlock show", "node airlock review", "node airlock release"],
    "site": ["hub node revoke", "hub witness export", "job order"],
}
# and everything else that is typed as words, with why it is given whole
WHOLE = {
    "a name for what is not there yet": {
        "node ingest": "project dataset", "hub node approve": "site", "job order": "run", "job new": "name",
        "job build": "tag", "node image add": "lineage", "node image pull": "lineage",
    },
    "a secret is computed from it: another spelling would be another pseudonym": {
        "deid run": "site project", "deid verify": "site project",
    },
    "read out by telephone, and compared as a whole": {"hub node approve": "request_id"},
    "nobody here has a list: a permit is revoked where it is not known": {"permit revocations": "permit"},
    "one of a few words, listed where none fits; or a file": {
        "node ingest": "profile", "deid run": "profile", "deid explain": "profile", "deid verify": "profile",
        "deid profiles": "name", "config explain": "key", "job new": "template", "job order": "strategy",
        "job test": "modality", "node airlock review": "reason", "node process": "role",
    },
    "the engine's to complete, as `docker` does": {"job test": "image", "job init-model": "image"},
    "the digest decides what is fetched": {"node image add": "from_engine", "node image pull": "reference"},
    "a person's words, or a place": {
        "node image approve": "by note", "node image withdraw": "by", "audit search": "text since until",
        "audit show": "since until", "audit export": "since until", "node ingest": "clinical column defaced_by",
        "deid run": "defaced_by",
        "node units": "hub_address", "hub units": "user", "job build": "engine", "job test": "engine config gpu",
        "job init-model": "engine", "job order": "config",
    },
}  # fmt: skip


def typed() -> set[tuple[str, str]]:
    """Command and parameter, for every one that takes any words."""
    return {
        (" ".join(path), parameter.name or "")
        for path, command in ALL
        for parameter in command.params
        if isinstance(parameter.type, click.types.StringParamType)
    }


def looked_up() -> set[tuple[str, str]]:
    return {(command, name) for name, commands in LOOKED_UP.items() for command in commands}


def test_every_name_that_a_command_takes_may_be_a_beginning_or_has_a_reason_not_to() -> None:
    whole = {(cmd, name) for one in WHOLE.values() for cmd, names in one.items() for name in names.split()}
    assert not looked_up() & whole
    assert typed() == looked_up() | whole


@pytest.mark.parametrize(("command", "name"), sorted(looked_up()))
def test_what_is_looked_up_goes_through_the_one_place_that_completes(command: str, name: str) -> None:
    """In the command's own function, or in one of its module that is handed the parameter."""
    callback = next(each.callback for path, each in ALL if " ".join(path) == command)
    assert callback is not None
    module = inspect.getmodule(inspect.unwrap(callback))
    assert module is not None
    functions = {f.name: f for f in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(f, ast.FunctionDef)}
    reached, looked_at, todo = set[str](), set[str](), [inspect.unwrap(callback).__name__]
    while todo:
        if (one := todo.pop()) in looked_at or one not in functions:
            continue
        looked_at.add(one)
        calls = [call.func for call in ast.walk(functions[one]) if isinstance(call, ast.Call)]
        called = {each.id if isinstance(each, ast.Name) else getattr(each, "attr", "") for each in calls}
        reached |= called
        todo += called
    assert reached & {"complete", "one_of"}, reached


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) or "cloister" for path, _ in ALL])
def test_every_parameter_has_a_description_also_of_what_is_not_shown(path: object, command: click.Command) -> None:
    for parameter in command.params:
        assert len((getattr(parameter, "help", None) or "").split()) >= 2, parameter.name


def test_what_there_is_is_listed_where_nothing_fits() -> None:
    assert one_of("aach", ["aachen", "bergen"], "site") == "aachen"
    with pytest.raises(UsageFault) as fault:
        one_of("dublin", ["aachen", "bergen"], "site")
    assert fault.value.message == "there is no site dublin" and fault.value.hint == "sites there are: aachen, bergen"
    with pytest.raises(UsageFault, match="no site is named"):
        one_of("", ["aachen", "bergen"], "site")
    many = [f"site-{number}" for number in range(9)]
    with pytest.raises(UsageFault) as fault:
        one_of("dublin", many, "site")
    assert (fault.value.hint or "").endswith("site-4 and 4 more")
    with pytest.raises(UsageFault) as fault:
        one_of("site-", many, "site", acts=False)
    assert "site-0" in fault.value.message


def test_records_are_found_by_the_beginning_of_a_permit_or_a_person(run: Callable[..., Done], log: Path) -> None:
    whole = run("show", log, "--permit", "other")
    begun = run("show", log, "--permit", "othe")
    assert begun.numbers == whole.numbers == [6, 7] and "permit other" in begun.err
    assert run("show", log, "--permit", "other@").numbers == [6, 7]
    assert run("show", log, "--who", "m.ok").numbers == run("show", log, "--who", "m.okafor").numbers == [2]
    assert run("export", log, "--permit", "othe").out == run("export", log, "--permit", "other").out
    assert "no record fits" in run("show", log, "--permit", "nosuch").err


def test_a_beginning_of_two_permits_names_both(run: Callable[..., Done], tmp_path: Path) -> None:
    records = [*RECORDS[:6], replace(RECORDS[6], permit="others@1"), RECORDS[7]]
    found = run("show", audit_log.write(tmp_path / "two", records, [5, 7], witnessed=5), "--permit", "othe")
    assert found.code == 2 and not found.out and "other, others" in found.err


def test_no_command_cuts_a_name() -> None:
    """A digest of twelve digits is another person's to look up: none is sliced for being shown."""
    cut = re.compile(r"\{[^{}]*(digest|sha256|fingerprint|key_id|image|run|job|version|order)\w*\[:\d+\]")
    for file in sorted(Path(node.cli.__file__).parent.rglob("*.py")):
        assert not cut.search(file.read_text()), file
