"""The airlock on the staff's sockets."""

from __future__ import annotations

from node.core.airlock import airlock, analyse
from node.core.core import CoreProcess
from node.ipc import airlock as words
from node.ipc.caller import Caller
from node.ipc.messages import Empty, SignedText
from node.ipc.verb import Handlers

HANDLERS = Handlers[CoreProcess]()


@HANDLERS.answers(words.ANALYSIS_START)
def start(process: CoreProcess, caller: Caller, request: words.RunId) -> words.Started:
    instruction = analyse.start(process.core, request.run, caller.actor)
    process.jobs.submit_unfinished()
    return words.Started(instruction.id)


@HANDLERS.answers(words.AIRLOCK_LIST)
def listed(process: CoreProcess, _caller: Caller, _request: Empty) -> tuple[words.FileLine, ...]:
    with process.core.store.read() as snapshot:
        rows = snapshot.airlock_files()
        return tuple(airlock.line(process.core, row, snapshot.airlock_reviews(row.file)) for row in rows)


@HANDLERS.answers(words.AIRLOCK_SHOW)
def show(process: CoreProcess, caller: Caller, request: words.FileId) -> words.ShownFile:
    return airlock.show(process.core, request.file, caller.actor)


@HANDLERS.answers(words.AIRLOCK_REVIEW)
def review(process: CoreProcess, caller: Caller, request: SignedText) -> words.FileReviewed:
    return words.FileReviewed(airlock.take_review(process.core, request.text, caller.actor))


@HANDLERS.answers(words.AIRLOCK_TAKE)
def take(process: CoreProcess, caller: Caller, request: words.FileId) -> words.ShownFile:
    return airlock.take(process.core, request.file, caller.actor)


@HANDLERS.answers(words.AIRLOCK_TAKEN)
def taken(process: CoreProcess, caller: Caller, request: words.FileId) -> Empty:
    airlock.taken(process.core, request.file, caller.actor)
    return Empty()
