"""What a job's container has printed, for hospital staff who may open the engine's socket. Bytes of a stranger's."""

from __future__ import annotations

from collections.abc import Iterator

from containers.engine import ContainerEngine
from mediator.errors import NotNow

# how long one look waits for the next lines
_LOOK_S = 1.0


def job_log(engine: ContainerEngine, site: str, sandbox: str, *, follow: bool) -> Iterator[bytes]:
    """The lines of a job's container, from the first that the engine still has; with `follow` until it ends.

    Raises `NotNow` where the engine has no such container (any more), `EngineUnavailable` where it does not answer.
    """
    found = [one for one in engine.containers(site, sandbox) if one.role == "job"]
    if not found:
        raise NotNow(
            "the container is gone, and what it printed with it",
            hint="the output of a job that failed by itself is kept for [limits] keep_log_s",
        )
    lines = engine.follow(found[0].id, errors=True, wait=follow)
    try:
        while True:
            try:
                yield from lines.take(_LOOK_S)
            except EOFError:
                return
    finally:
        lines.close()
