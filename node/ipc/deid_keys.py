"""The end of a de-identification key, on the staff's sockets: a key is named by its id, which tells nothing of it."""

from __future__ import annotations

from dataclasses import dataclass

from node.ipc.messages import Empty
from node.ipc.verb import Verb


@dataclass(frozen=True)
class KeyRetirement:
    """A key that is about to be destroyed; or, `destroyed`, that is gone."""

    key: str
    destroyed: bool = False


DEID_KEY_RETIRE = Verb("deid_key_retire", KeyRetirement, Empty)
