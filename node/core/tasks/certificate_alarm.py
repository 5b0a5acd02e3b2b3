"""The hub says, or the link finds, that this site's certificate may be in other hands: written down, for people."""

from __future__ import annotations

import logging
import threading
from datetime import datetime, timedelta

from mediator.audit import Action, Verdict
from mediator.errors import CERTIFICATE_ALARMS, Code, Malformed
from node.core.context import Core, event

log = logging.getLogger(__name__)

# the link is told by a hub, and may be its; one record a day says the same as a million
_AGAIN = timedelta(days=1)


class CertificateAlarms:
    """Records each kind of alarm once a day."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._said: dict[Code, datetime] = {}

    def record(self, code: Code) -> None:
        """Write an alarm down. Raises `Malformed` for a code that is none."""
        if code not in CERTIFICATE_ALARMS:
            raise Malformed("not an alarm about a certificate")
        now = self._core.clock()
        with self._lock:
            # a record of the future, by a clock that was ahead, silences nothing
            if code in self._said and timedelta(0) <= now - self._said[code] < _AGAIN:
                return
            with self._core.store.transaction(now) as tx:
                about = f"certificate/{self._core.site}"
                tx.record(event=event(Action.CERTIFICATE_ALARM, about, Verdict.FAILED, code=code))
            self._said[code] = now
        log.error("alarm: %s: this site's certificate may be in other hands; telephone the hub's operator", code.value)
