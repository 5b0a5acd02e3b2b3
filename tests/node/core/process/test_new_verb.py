"""A staff verb added the way ARCHITECTURE.md says: a line in the table of roles, its words, its handler, a command."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import pytest

from mediator.audit import Action, Verdict
from mediator.errors import Code, Denied
from mediator.roles import PERMISSIONS, Role
from node.broker import handlers as broker
from node.cli.output import show
from node.core import staff
from node.core.context import event
from node.core.core import CoreProcess
from node.core.imports import intake_handlers as intake
from node.core.tasks import link_handlers as link
from node.ipc.caller import Caller
from node.ipc.channel import Client
from node.ipc.messages import Empty
from node.ipc.server import Call, Server
from node.ipc.staff import STAFF
from node.ipc.verb import Handlers, Verb, verbs_in
from tests.node.core.process.test_process import Served, config, served

__all__ = ["config", "served"]

# 1 - the table of roles
TABLE = {**PERMISSIONS, "fire_drill": frozenset({Role.IT_ADMIN, Role.AUDITOR})}


# 2 - its words
@dataclass(frozen=True)
class Drill:
    floor: int


@dataclass(frozen=True)
class Drilled:
    site: str
    by: str


WORDS = ModuleType("fire")
WORDS.FIRE_DRILL = FIRE_DRILL = Verb("fire_drill", Drill, Drilled)  # type: ignore[attr-defined]

# 3 - its handler
HANDLERS = Handlers[CoreProcess]()


@HANDLERS.answers(FIRE_DRILL)
def drill(process: CoreProcess, caller: Caller, request: Drill) -> Drilled:
    core = process.core
    held = event(Action.ACCESS, f"floor/{request.floor}", Verdict.DONE, actor=caller.actor)
    with core.store.transaction(core.clock()) as tx:
        tx.record(event=held)
    return Drilled(core.site, caller.actor)


# 4 - a command
def command(socket: Path, floor: int) -> None:
    with Client(socket) as client:
        show(client.call(FIRE_DRILL, Drill(floor)), as_json=True)


def server(served: Served, role: Role, verbs: Any = None, handlers: Any = None, table: Any = None) -> Server:
    return Server(
        served.config.paths.root / "run" / f"drill-{role.value}.sock",
        (*STAFF, *verbs_in(WORDS)) if verbs is None else verbs,
        {**staff.handlers(served.core), **HANDLERS.of(served.core)} if handlers is None else handlers,
        caller=Caller(role.value),
        permissions=TABLE if table is None else table,
        signers=staff.signers(served.config),
    )


@pytest.fixture(params=list(Role))
def drilled(served: Served, request: pytest.FixtureRequest) -> Iterator[tuple[Served, Role, Path]]:
    role: Role = request.param
    with server(served, role):
        yield served, role, served.config.paths.root / "run" / f"drill-{role.value}.sock"


def test_who_may_ask_it_is_answered_and_recorded_and_who_may_not_is_refused(
    drilled: tuple[Served, Role, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    served, role, socket = drilled
    with served.core.core.store.read() as snapshot:
        before = snapshot.audit_size()
    if role in TABLE["fire_drill"]:
        command(socket, 2)
        assert f'"by": "{role.value}.unknown"' in capsys.readouterr().out
        with served.core.core.store.read() as snapshot:
            (line,) = snapshot.audit_lines(before, 10)
        assert f'"actor":"{role.value}.unknown"' in line and '"object":"floor/2"' in line
        return
    with pytest.raises(Denied) as denied:
        command(socket, 2)
    assert denied.value.reasons[0].code is Code.ROLE_NOT_PERMITTED
    with served.core.core.store.read() as snapshot:
        assert snapshot.audit_size() == before


def test_whichever_of_its_places_is_forgotten_core_does_not_start(served: Served) -> None:
    known = staff.handlers(served.core)
    for forgotten, says in (
        ({"table": PERMISSIONS}, "that no role may ask: fire_drill"),
        ({"handlers": known}, "without a handler: fire_drill"),
        ({"verbs": STAFF}, "answered and not listed: fire_drill"),
        ({"verbs": STAFF, "handlers": known}, "in the table of roles alone: fire_drill"),
        ({"handlers": {**known, replace(FIRE_DRILL, answer=Empty): drill}}, "without a handler: fire_drill"),
    ):
        with pytest.raises(ValueError, match=says):
            server(served, Role.AUDITOR, **forgotten)


TABLES = (
    *(subject.HANDLERS for subject in staff.SUBJECTS),
    staff.HANDLERS,
    link.HANDLERS,
    intake.HANDLERS,
    broker.HANDLERS,
)


@pytest.mark.parametrize(("verb", "handler"), [each for table in TABLES for each in table.of(None).items()])  # type: ignore[arg-type]
def test_a_handler_takes_and_answers_what_its_verb_says(verb: Verb[Any, Any], handler: Any) -> None:
    hints = get_type_hints(handler.func)
    answer = hints.pop("return")
    _process, caller, request, *more = hints.values()
    assert (caller, request) == (Caller, verb.request)
    assert {
        "unary": ([], verb.answer),
        "server": ([Call], Iterator[verb.answer]),
        "download": ([Call], Iterator[verb.answer | bytes]),
        "upload": ([Iterator[bytes]], verb.answer),
    }[verb.stream] == (more, answer)
