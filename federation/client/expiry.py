"""A word in the log, once a day, while a node's certificate is near its end and was not renewed."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from cryptography import x509

log = logging.getLogger("cloister.link")

# a renewal is tried from ten days before the end on; what has failed for three needs a person
WARN_WITHIN = timedelta(days=7)
_AGAIN = timedelta(days=1)


class ExpiryWarning:
    """Remembers when it was said last."""

    def __init__(self) -> None:
        self._said: datetime | None = None

    def look(self, certificate: x509.Certificate, now: datetime) -> None:
        """Say it where it is time to."""
        left = certificate.not_valid_after_utc - now
        if left >= WARN_WITHIN or (self._said is not None and timedelta(0) <= now - self._said < _AGAIN):
            return
        self._said = now
        if left > timedelta(0):
            log.error(
                "this node's certificate ends in %.1f days and could not be renewed: is the hub reachable? If it ends, "
                "the hub must revoke this site and enrol it anew",
                left / timedelta(days=1),
            )
        else:
            log.error(
                "this node's certificate has ended: telephone the hub's operator, `cloister node enrol --new-keys`"
            )
