"""The end of a node's site key on the staff's sockets."""

from __future__ import annotations

from node.core.core import CoreProcess
from node.core.site_keys.retire import record_retirement
from node.ipc import deid_keys as words
from node.ipc.caller import Caller
from node.ipc.messages import Empty
from node.ipc.verb import Handlers

HANDLERS = Handlers[CoreProcess]()


@HANDLERS.answers(words.DEID_KEY_RETIRE)
def retire(process: CoreProcess, caller: Caller, request: words.KeyRetirement) -> Empty:
    record_retirement(process.core, request.key, caller.actor, destroyed=request.destroyed)
    return Empty()
