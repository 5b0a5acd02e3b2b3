"""What a process tells its service manager: that it serves, and that it is still alive (sd_notify(3)).

Without a service manager (`cloister node serve`, a test) there is nobody to tell, and every call does nothing.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable

# a watchdog is fed three times in its time, so that one late pass is no death
_FEEDS = 3


class Notifier:
    """One process's end of `$NOTIFY_SOCKET`. `every_s`: how often a sign of life is due; None: nobody waits for one."""

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        # a name that begins with @ is in the abstract namespace
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.every_s = None if watchdog_s is None else watchdog_s / _FEEDS

    @classmethod
    def from_environment(cls) -> Notifier:
        """The service manager's wishes. They are taken out of the environment: no child of ours speaks for us."""
        address = os.environ.pop("NOTIFY_SOCKET", "")
        watchdog_us, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        ours = watchdog_us.isdigit() and pid in ("", str(os.getpid()))
        return cls(address, int(watchdog_us) / 1e6 if ours else None)

    def ready(self) -> None:
        """It serves."""
        self._say("READY=1")

    def alive(self) -> None:
        """To be said by the loop that does the work, and only when it comes round."""
        self._say("WATCHDOG=1")

    def stopping(self) -> None:
        self._say("STOPPING=1")

    def _say(self, text: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            try:
                sender.sendto(text.encode("ascii"), self._address)
            except OSError:
                pass  # who does not listen ends us by its own clock


class Pulse:
    """For a main loop that waits where it cannot be woken, or works long at one step: a thread feeds the watchdog,
    but only while the loop waits for work, or has made a step in the last `longest_s`."""

    def __init__(self, notifier: Notifier, longest_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._notifier = notifier
        self._longest_s = longest_s
        self._clock = clock
        self._stepped_s: float | None = None

    def start(self) -> None:
        if self._notifier.every_s is not None:
            threading.Thread(target=self._feed, args=(self._notifier.every_s,), name="pulse", daemon=True).start()

    def step(self) -> None:
        """The loop works, and has just made a step."""
        self._stepped_s = self._clock()

    def idle(self) -> None:
        """The loop waits for work."""
        self._stepped_s = None

    @property
    def beats(self) -> bool:
        """Whether the loop is taken for alive."""
        stepped_s = self._stepped_s
        return stepped_s is None or self._clock() - stepped_s <= self._longest_s

    def _feed(self, every_s: float) -> None:
        while True:
            if self.beats:
                self._notifier.alive()
            time.sleep(every_s)
