"""What is tried again, each at its own time, while everything else goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from mediator.errors import CloisterError

log = logging.getLogger("cloister.link")

Work = Callable[[], Awaitable[None]]
# how long to leave alone what failed although it was nobody's fault: hub or core is away, or has no room
PAUSE_S = 5.0
# what waits is held in memory; whoever has more has a source that gives it again
MOST = 256


class Again:
    """Work by name, and when it is due. What fails is put back by itself, or by whoever runs `work_off`."""

    def __init__(self) -> None:
        self._due: dict[str, tuple[float, Work]] = {}
        self._news = asyncio.Event()

    def __contains__(self, name: str) -> bool:
        return name in self._due

    def put(self, name: str, after_s: float, work: Work) -> bool:
        """Have `work` done after so many seconds. False where too much waits already."""
        if name not in self._due and len(self._due) >= MOST:
            return False
        self._due[name] = (asyncio.get_running_loop().time() + after_s, work)
        self._news.set()
        return True

    async def work_off(self) -> None:
        """For ever."""
        while True:
            self._news.clear()
            now = asyncio.get_running_loop().time()
            for name, (due, work) in list(self._due.items()):
                if due <= now:
                    # it stays in its place while it is under way, so that nobody begins it a second time
                    await self._do(name, due, work)
            next_due = min((due for due, _ in self._due.values()), default=now + PAUSE_S)
            try:
                async with asyncio.timeout_at(max(next_due, asyncio.get_running_loop().time() + 0.01)):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _do(self, name: str, due: float, work: Work) -> None:
        try:
            await work()
        except Exception as error:
            if isinstance(error, CloisterError):
                log.debug("%s waits: %s", name, error.message)
            else:
                log.exception("%s met an error nobody foresaw", name)
            self.put(name, PAUSE_S, work)
        if self._due.get(name, (0.0, work))[0] == due:
            self._due.pop(name, None)
