"""`broker.sock` on the broker's side: five verbs, answered by whatever runs containers."""

from __future__ import annotations

from collections.abc import Iterator

from mediator.ports import JobEvent, Prepared, Runner
from node.ipc import broker as words
from node.ipc.caller import Caller
from node.ipc.messages import Empty, SignedText
from node.ipc.server import Call
from node.ipc.verb import Handlers

HANDLERS = Handlers[Runner]()


@HANDLERS.answers(words.PREPARE)
def prepare(runner: Runner, _caller: Caller, request: SignedText) -> Prepared:
    return runner.prepare(request.text)


@HANDLERS.answers(words.EXECUTE)
def execute(runner: Runner, _caller: Caller, request: words.ContainerId, call: Call) -> Iterator[JobEvent]:
    for event in runner.execute(request.job):
        if not call.active:
            return
        yield event


@HANDLERS.answers(words.FINALISE)
def finalise(
    runner: Runner, _caller: Caller, request: words.FinaliseTask, _call: Call
) -> Iterator[words.FileStart | bytes]:
    for file in runner.finalise(request.job, request.task):
        yield words.FileStart(file.name, len(file.content))
        yield file.content


@HANDLERS.answers(words.TERMINATE)
def terminate(runner: Runner, _caller: Caller, request: words.Terminate) -> Empty:
    runner.terminate(request.job, request.grace_s)
    return Empty()


@HANDLERS.answers(words.CLEAN)
def clean(runner: Runner, _caller: Caller, request: words.ContainerIds) -> words.ContainerIds:
    return words.ContainerIds(tuple(runner.clean(request.jobs)))
