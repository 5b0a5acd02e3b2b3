"""No job in a sandbox that has not just been attacked by ourselves: the canary's verdict, kept for a day."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from containers.warm.pool import Sandboxes
from containers.warm.removal import Stopping
from mediator.audit import Action, Verdict
from mediator.errors import CloisterError, Code, Denied, Reason
from mediator.ports import Prepared
from mediator.types import ContainerSpec, Resources
from node.core.context import CORE, Core, event
from node.core.store.writes import Tx

log = logging.getLogger(__name__)

VALID_FOR = timedelta(hours=24)
# whoever asked for the canary is told once its failure is written down, or after this
_RECORD_S = 1.0
# and once what gave way has ended, or after this: it ends all the same
_STOP_S = 5.0

RunCanary = Callable[[str, ContainerSpec, str | None], tuple[str, tuple[str, ...]]]
"""(canary's name, a job's spec, the fingerprint expected) -> the fingerprint, and the names of what gave way (empty
when the sandbox held). Without an expectation whatever fingerprint the sandbox has is probed."""


def spec_under(limits: Resources, core: Core) -> ContainerSpec:
    """A container under these limits, with as many of the site's GPUs as they grant; what runs in it is not said."""
    now = core.clock()
    gpus = tuple(gpu.id for gpu in core.schedule.capacity.gpus[: limits.gpus])
    image, until = f"sha256:{'0' * 64}", now + VALID_FOR
    return ContainerSpec("canary", "canary", image, "/", "/", replace(limits, gpu_memory_bytes=0), now, until, gpus)


class SandboxTrust:
    """Runs a canary where none is valid, and ends the node's containers when one fails."""

    def __init__(self, core: Core, run_canary: RunCanary) -> None:
        self._core = core
        self._run_canary = run_canary
        self._one_at_a_time = threading.Lock()
        self._renewing = threading.Lock()
        # what gave way last, whether the store has it or not
        self._broken: set[str] = set()
        # set once by whoever wires both: the containers ask for trust, and a failed canary ends the containers
        self.sandboxes: Sandboxes

    def require(self, spec: ContainerSpec, prepared: Prepared) -> None:
        """Return only if a passed canary of at most 24 h stands for this fingerprint. Raises `Denied`."""
        with self._one_at_a_time:
            if self._is_valid(prepared.fingerprint):
                return
            _, failures, _ = self._probe(spec, prepared.fingerprint)
        if failures:
            raise Denied(Reason(Code.CANARY_FAILED, ", ".join(failures)))

    def renew(self) -> None:
        """Give containers that outlive their canary's 24 h another one; called by the clock, works in a thread.

        If it fails, they end, whatever they are at.
        """
        due = {
            made.fingerprint: (spec, made)
            for spec, made in self.sandboxes.vouched()
            if not self._is_valid(made.fingerprint)
        }
        if due and self._renewing.acquire(blocking=False):
            threading.Thread(target=self._renew, args=(list(due.values()),), name="canary", daemon=True).start()

    def _renew(self, due: list[tuple[ContainerSpec, Prepared]]) -> None:
        try:
            for spec, prepared in due:
                self.require(spec, prepared)
        except CloisterError as error:
            # a failure has ended the containers already; an engine that is away is asked again by the next tick
            log.warning("canary: %s", error.message)
        except Exception as error:  # noqa: BLE001 - the next tick tries again
            log.error("canary: %s", type(error).__name__)
        finally:
            self._renewing.release()

    def probe_now(self, limits: Resources, actor: str) -> tuple[str, tuple[str, ...]]:
        """Run a canary under these limits for `actor`, whatever stands already: its fingerprint, and what gave way."""
        # the canary brings its own image and folders; of a job's spec only the limits count, and how many GPUs
        spec = spec_under(limits, self._core)
        with self._one_at_a_time:
            fingerprint, failures, stopping = self._probe(spec, None, actor)
        if stopping is not None:  # only now: a task at the door holds a container that is to end, and wants the lock
            stopping.wait(_STOP_S)
        return fingerprint, failures

    def _probe(
        self, spec: ContainerSpec, expected: str | None, actor: str = CORE
    ) -> tuple[str, tuple[str, ...], Stopping | None]:
        """One canary: its fingerprint, what gave way, and the containers that begin to end for it. Nobody waits for
        those here: the tasks in them may be waiting for a canary of their own."""
        name = f"canary-{secrets.token_hex(8)}"
        try:
            with self.sandboxes.guest(name):
                fingerprint, failures = self._run_canary(name, spec, expected)
            return fingerprint, failures, self._conclude(fingerprint, failures, actor)
        finally:
            self.sandboxes.sweep_guests()

    def _conclude(self, fingerprint: str, failures: tuple[str, ...], actor: str) -> Stopping | None:
        probes = dict.fromkeys(failures, False) or {"all": True}
        code, verdict = (Code.CANARY_FAILED, Verdict.FAILED) if failures else (None, Verdict.DONE)
        found = event(Action.CANARY, f"sandbox/{fingerprint or 'unknown'}", verdict, code=code, actor=actor)

        def write(tx: Tx) -> None:
            tx.add_canary(fingerprint, not failures, probes, event=found)

        if failures:  # what gave way ends before it is written down
            self._broken.add(fingerprint)
            stopping = self.sandboxes.begin_stop(Code.CANARY_FAILED, lambda _: True)
            self._core.deferred.add(write).paid.wait(_RECORD_S)
            return stopping
        with self._core.store.transaction(self._core.clock()) as tx:
            write(tx)
        self._broken.discard(fingerprint)
        return None

    def _is_valid(self, fingerprint: str) -> bool:
        if fingerprint in self._broken:
            return False
        with self._core.store.read() as snapshot:
            canary = snapshot.newest_canary(fingerprint)
        return canary is not None and canary.passed and timedelta(0) <= self._core.clock() - canary.time <= VALID_FOR
