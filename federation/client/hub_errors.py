"""How asking the hub fails. Apart from what asks: whoever tells people of it need not load Flower."""

from __future__ import annotations

from mediator.errors import NotNow


class HubUnreachable(NotNow):
    """The hub does not answer, or its SuperLink behind the ingress does not."""

    code = "hub_unreachable"


class HubApart(HubUnreachable):
    """The hub speaks a protocol too far from this node's: one of them has to be upgraded, and nothing is lost until
    then. `hub_is_older` says which."""

    code = "hub_apart"

    def __init__(self, message: str, *, hub_is_older: bool) -> None:
        super().__init__(message)
        self.hub_is_older = hub_is_older


class HubBusy(HubUnreachable):
    """The hub answers that it cannot now: its disk is full, say. No message's fault."""

    code = "hub_busy"


class AnswerLost(HubUnreachable):
    """The hub may have heard the question, but its answer did not arrive."""


class NotActive(NotNow):
    """The hub answers, but does not know this node as active."""

    code = "node_not_active"


class RunOver(NotNow):
    """The Flower run that a message belongs to has ended: nobody waits for this reply any more."""

    code = "run_over"
