"""One run, conducted: signs instructions, judges replies, keeps rounds and checkpoints. Flower does the averaging.

A reply counts only if
1. an envelope signed by the site's release key for the site's newest instruction was received before it,
2. the RecordDict id computed from what was read is the envelope's `root`, and no other object came along,
3. that envelope was not used before,
4. its tensors are the permit's: names in the permit's order, shapes, types, finite,
5. its metrics are the permit's for this task: names and numbers in range, with a positive `num-examples`,
6. its envelope has not expired.
Anything else is dropped and recorded with one of `Drop`. One site's extra tensor would otherwise end the run for all
(Flower raises `InconsistentMessageReplies`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

import numpy as np
from sqlalchemy import delete, select

from federation.arrays import PERMITTED, Array
from federation.hub import runs
from federation.hub.checkpoints import Checkpoints, RoundCheckpoint, history_text
from federation.hub.database import Database, driver
from federation.hub.overview import rounds_of
from federation.hub.steering import Interrupted, Metrics, Reply, ReplyVerdict, RunStopped
from federation.hub.tables import AttemptRow, EnvelopeRow, HubInstructionRow, ReplyRow, RoundRow, RunRow
from mediator import tensors
from mediator.canonical import print_time
from mediator.errors import Denied, HubCode, Malformed
from mediator.signatures import KeyRing, SigningKey, open_signed
from mediator.types import DataPermit, Instruction, Kind, MetricSpec, ReleaseEnvelope, RunOrder

log = logging.getLogger("cloister.hub")

WEIGHT = "num-examples"
_AWAY_S = 1.0
_TRANSIENT = frozenset({HubCode.PAUSED, HubCode.NOT_READY})
_RETRY_FIRST_S, _RETRY_MOST_S = 1.0, 30.0


class Drop(StrEnum):
    """Why a reply was dropped by the hub, or never came."""

    NO_ENVELOPE = "no_envelope"
    ROOT_MISMATCH = "root_mismatch"
    OBJECTS_UNNAMED = "objects_unnamed"
    ENVELOPE_USED = "envelope_used"
    ENVELOPE_EXPIRED = "envelope_expired"
    MALFORMED = "malformed"
    MODEL_MISMATCH = "model_mismatch"
    METRICS_MISMATCH = "metrics_mismatch"
    UNKNOWN_CODE = "unknown_code"
    AWAY = "away"
    ABSENT = "absent"
    TIMEOUT = "timeout"
    NOT_ENROLLED = "not_enrolled"


class Conductor:
    """`steering.Steering` for one run over `hub.db`."""

    def __init__(
        self,
        order: RunOrder,
        permit: DataPermit,
        *,
        database: Database,
        checkpoints: Checkpoints,
        key: SigningKey,
        flower_keys: Mapping[str, bytes],
        release_keys: Mapping[str, KeyRing],
        clock: Callable[[], datetime],
        wake: Callable[[Sequence[str]], None],
        poll_s: float,
        timeout_s: float,
        patience_s: float,
    ) -> None:
        self.flower_keys = flower_keys
        self.poll_s, self.timeout_s, self._patience_s = poll_s, timeout_s, patience_s
        self._order, self._permit, self._key = order, permit, key
        self._database, self._checkpoints, self._clock, self._wake = database, checkpoints, clock, wake
        self._release_keys = release_keys
        self._event, self._ending = threading.Event(), ""
        self._round, self._task, self._model_sha256 = 0, Kind.EVALUATE, ""
        self._started, self._waiting = 0.0, ""
        self._missed: frozenset[str] = frozenset()
        self._minimum = len(order.sites)
        self._without: set[str] = set()
        self._asked: dict[str, tuple[str, float]] = {}
        self._retries: dict[str, int] = {}
        self._absences: dict[str, int] = {}
        self._attempt = 0

    # --- from other threads ---------------------------------------------------------------------------------

    def nudge(self) -> None:
        """An envelope came in: a reply will follow at once."""
        self._event.set()

    def interrupt(self) -> None:
        """The hub goes down."""
        self._ending = "interrupt"
        self._event.set()

    def stop(self) -> None:
        """Somebody asked for the run to end."""
        self._ending = "stop"
        self._event.set()

    # --- a round --------------------------------------------------------------------------------------------

    def opened(self, flower_run: int) -> int:
        """A Flower run was opened for this run; returns the attempt's number."""
        self._new_attempt("opened", str(flower_run))
        return self._attempt

    def begin(self, round_: int, task: Kind, model: Mapping[str, Array]) -> None:
        self._round, self._task = round_, task
        self._model_sha256 = hashlib.sha256(tensors.encode(dict(model))).hexdigest()
        self._started, self._waiting = time.monotonic(), ""
        self._asked, self._retries, self._absences, self._without = {}, {}, {}, set()
        self._missed = self._missed_before()
        with self._database.write() as session:
            again = (ReplyRow.run == self._order.run, ReplyRow.round == round_, ReplyRow.task == task.value)
            # a round done again after a crash starts from nothing; what was refused stays in the record
            session.execute(delete(ReplyRow).where(*again, ReplyRow.outcome == "used"))
            self._minimum = session.get_one(RunRow, self._order.run).minimum_sites
            session.merge(
                RoundRow(
                    run=self._order.run,
                    round=round_,
                    task=task.value,
                    model_sha256=self._model_sha256,
                    started=print_time(self._clock()),
                    finished=None,
                    seconds=None,
                    metrics=None,
                )
            )
        for site in sorted(set(self._order.sites) - self.flower_keys.keys()):
            self._record(Reply(site), "missing", Drop.NOT_ENROLLED)
            self._without.add(site)
        self.enough(sorted(self.flower_keys))

    def patience_s(self, site: str) -> float:
        counted_on = len(self._order.sites) - len(self._missed)
        return 0.0 if site in self._missed and counted_on >= self._minimum else self._patience_s

    def waiting(self, sites: Sequence[str]) -> None:
        text = f"waiting for {', '.join(sites)}" if sites else ""
        if text != self._waiting:
            self._waiting = text
            self._set_state(runs.WAITING if text else runs.RUNNING, text or self._progress())

    def instruct(self, site: str, *, again: bool) -> str:
        if again:
            self._new_attempt("resend")
        now = self._clock()
        expires = min(now + timedelta(seconds=self.timeout_s), self._order.expires)
        if expires <= now:
            raise RunStopped("the run order has expired")
        instruction = Instruction(
            run=self._order.run,
            permit=self._order.permit,
            permit_version=self._order.permit_version,
            site=site,
            round=self._round,
            task=self._task,
            attempt=self._attempt,
            config=dict(self._order.config),
            model_sha256=self._model_sha256,
            issued=now,
            expires=expires,
        )
        text = self._key.sign(instruction)
        with self._database.write() as session:
            session.add(
                HubInstructionRow(
                    site=site,
                    instruction=instruction.id,
                    run=instruction.run,
                    round=instruction.round,
                    task=instruction.task.value,
                    attempt=instruction.attempt,
                    sent=print_time(now),
                    text=text,
                )
            )
            self._update_run(session.get_one(RunRow, self._order.run), runs.RUNNING, self._progress())
        self._asked[site] = (instruction.id, time.monotonic())
        return text

    def envelope(self, site: str) -> ReleaseEnvelope | None:
        with self._database.read() as session:
            row = session.get(EnvelopeRow, (site, self._asked[site][0]))
        if row is None or row.used is not None:
            return None
        envelope = self._opened(row)
        return None if envelope is None or self._clock() >= envelope.expires else envelope  # (6)

    def _opened(self, row: EnvelopeRow) -> ReleaseEnvelope | None:
        try:
            return open_signed(ReleaseEnvelope, row.text, self._release_keys[row.site]).document  # (1)
        except (Denied, Malformed):  # the site was enrolled anew, with another key, while it computed
            return None

    def judge(self, reply: Reply) -> tuple[ReplyVerdict, float]:
        if reply.away:
            return self._away(reply)
        if reply.refusal is not None:
            return self._refused(reply)
        if (drop := self._fault(reply)) is not None:
            self._record(reply, "dropped", drop)
            self._without.add(reply.site)
            return ReplyVerdict.OUT, 0.0
        self._record(reply, "used", "")
        return ReplyVerdict.USED, 0.0

    def missing(self, site: str, *, absent: bool) -> None:
        code = Drop.ABSENT if absent else Drop.TIMEOUT
        self._record(Reply(site), "missing", code)
        self._without.add(site)
        log.warning("run %s: round %d goes on without %s (%s)", self._order.run, self._round, site, code.value)
        self._waiting = ""
        self._set_state(runs.RUNNING, self._progress())

    def enough(self, sites: Sequence[str]) -> None:
        minimum = self._minimum
        if len(sites) < minimum:
            absent = ", ".join(sorted(set(self._order.sites) - set(sites)))
            where = f"round {self._round}, {self._task.value}"
            raise RunStopped(f"{where}: {len(sites)} of at least {minimum} sites; without {absent}")

    def nap(self, seconds: float) -> bool:
        happened = self._event.wait(seconds)
        self._event.clear()
        if self._ending == "interrupt":
            raise Interrupted("the hub is going down")
        if self._ending == "stop":
            raise RunStopped("stopped by hand")
        return happened

    def wake(self, sites: Sequence[str]) -> None:
        self._wake(sites)

    def trained(self, model: Mapping[str, Array]) -> dict[str, Array]:
        self._finish()
        specs = {spec.name: PERMITTED[spec.dtype] for spec in self._permit.tensors}
        typed = {name: _typed(np.asarray(array), specs[name]) for name, array in model.items()}
        try:
            return tensors.parse(tensors.encode(typed), self._permit.tensors)
        except Denied as error:
            raise RunStopped(f"round {self._round}: the average is no model ({error.reasons[0].code})") from error

    def evaluated(self) -> None:
        self._finish()

    def round_done(self, round_: int, model: Mapping[str, Array]) -> None:
        encoded = tensors.encode(dict(model))
        digest = hashlib.sha256(encoded).hexdigest()
        with self._database.read() as session:
            history = history_text(rounds_of(driver(session), self._order.run))
        checkpoint = RoundCheckpoint(self._order.run, round_, self._attempt, digest, self._clock(), history)
        self._checkpoints.put(checkpoint, encoded)
        with self._database.write() as session:
            row = session.get_one(RunRow, self._order.run)
            row.completed_round, row.model_sha256 = round_, digest
            self._update_run(row, runs.RUNNING, f"round {round_} of {self._order.rounds} done")
        log.info("run %s: round %d of %d done", self._order.run, round_, self._order.rounds)

    # --- within ---------------------------------------------------------------------------------------------

    def _away(self, reply: Reply) -> tuple[ReplyVerdict, float]:
        # asking again is a new attempt with rows of its own: a site that comes and goes is asked less and less often
        times = self._absences[reply.site] = self._absences.get(reply.site, 0) + 1
        if times == 1:
            self._record(reply, "missing", Drop.AWAY)
        return ReplyVerdict.AGAIN, min(_AWAY_S * 2 ** (times - 1), _RETRY_MOST_S)

    def _refused(self, reply: Reply) -> tuple[ReplyVerdict, float]:
        try:
            code = HubCode(reply.refusal or "")
        except ValueError:
            self._record(reply, "dropped", Drop.UNKNOWN_CODE)
            self._without.add(reply.site)
            return ReplyVerdict.OUT, 0.0
        times = self._retries[reply.site] = self._retries.get(reply.site, 0) + 1
        if times == 1 or code not in _TRANSIENT:
            self._record(reply, "refused", code.value)
            log.warning("run %s: %s refused round %d (%s)", self._order.run, reply.site, self._round, code.value)
        if code not in _TRANSIENT or time.monotonic() - self._started >= self.patience_s(reply.site):
            self._without.add(reply.site)
            return ReplyVerdict.OUT, 0.0
        self._set_state(runs.WAITING, f"{reply.site} is {code.value.replace('_', ' ')}")
        return ReplyVerdict.AGAIN, min(_RETRY_FIRST_S * 2 ** (times - 1), _RETRY_MOST_S)

    def _fault(self, reply: Reply) -> Drop | None:
        if reply.malformed:
            return Drop.MALFORMED
        with self._database.read() as session:
            row = session.get(EnvelopeRow, (reply.site, self._asked[reply.site][0]))
        if row is None:  # (1)
            return Drop.NO_ENVELOPE
        if row.used is not None:  # (3)
            return Drop.ENVELOPE_USED
        if row.root != reply.root:  # (2)
            return Drop.ROOT_MISMATCH
        envelope = self._opened(row)
        if envelope is not None and self._clock() >= envelope.expires:  # (6)
            return Drop.ENVELOPE_EXPIRED
        if reply.metrics is None:  # (2)
            return Drop.OBJECTS_UNNAMED
        if not self._model_fits(reply):  # (4)
            return Drop.MODEL_MISMATCH
        return None if self._metrics_fit(reply.metrics) else Drop.METRICS_MISMATCH  # (5)

    def _model_fits(self, reply: Reply) -> bool:
        if self._task is Kind.EVALUATE or reply.tensors is None:
            return self._task is Kind.EVALUATE and reply.tensors is None
        given, specs = reply.tensors, self._permit.tensors
        # in this order: strategies that read a model as a list would average one layer with another
        return list(given) == [spec.name for spec in specs] and all(
            given[spec.name].shape == spec.shape
            and given[spec.name].dtype == PERMITTED[spec.dtype]
            and tensors.is_finite(given[spec.name])
            for spec in specs
        )

    def _metrics_fit(self, metrics: Metrics) -> bool:
        allowed = {spec.name: spec for spec in self._permit.metrics.get(self._task.value, ())}
        # gate 2's own range: a finite weight of 1e308 would make the average of all sites none
        return (
            metrics.keys() == allowed.keys()
            and all(_in_range(metrics[name], spec) for name, spec in allowed.items())
            and metrics.get(WEIGHT, 0) > 0
        )

    def _record(self, reply: Reply, outcome: str, code: str) -> None:
        asked, sent = self._asked.get(reply.site, ("", time.monotonic()))
        now = print_time(self._clock())
        with self._database.write() as session:
            envelope = session.get(EnvelopeRow, (reply.site, asked)) if outcome == "used" else None
            if envelope is not None:
                envelope.used = now
            session.add(
                ReplyRow(
                    run=self._order.run,
                    round=self._round,
                    task=self._task.value,
                    site=reply.site,
                    attempt=self._attempt,
                    outcome=outcome,
                    code=str(code),
                    root=reply.root,
                    size_bytes=envelope.size_bytes if envelope is not None else 0,
                    seconds=round(time.monotonic() - sent, 3),
                    metrics=json.dumps(dict(reply.metrics or {}) if outcome == "used" else {}, sort_keys=True),
                    received=now,
                )
            )

    def _missed_before(self) -> frozenset[str]:
        """The sites whose reply did not count in the task that was finished last, also by a hub before this one."""
        mine = RoundRow.run == self._order.run
        with self._database.read() as session:
            finished = select(RoundRow).where(mine, RoundRow.finished.is_not(None))
            # a round is trained first and evaluated then
            last = session.scalar(finished.order_by(RoundRow.round.desc(), RoundRow.task).limit(1))
            if last is None:
                return frozenset()
            counted = select(ReplyRow.site).where(
                ReplyRow.run == last.run,
                ReplyRow.round == last.round,
                ReplyRow.task == last.task,
                ReplyRow.outcome == "used",
            )
            return frozenset(self._order.sites) - frozenset(session.scalars(counted))

    def _finish(self) -> None:
        mine = (ReplyRow.run == self._order.run, ReplyRow.round == self._round, ReplyRow.task == self._task.value)
        with self._database.write() as session:
            used = session.scalars(select(ReplyRow.metrics).where(*mine, ReplyRow.outcome == "used"))
            row = session.get_one(RoundRow, (self._order.run, self._round, self._task.value))
            row.finished, row.seconds = print_time(self._clock()), round(time.monotonic() - self._started, 3)
            row.metrics = json.dumps(weighted_mean([json.loads(text) for text in used]), sort_keys=True)

    def _new_attempt(self, reason: str, flower_run: str = "") -> None:
        with self._database.write() as session:
            row = session.get_one(RunRow, self._order.run)
            row.attempt = self._attempt = row.attempt + 1
            now = print_time(self._clock())
            session.add(AttemptRow(run=row.run, attempt=row.attempt, flower_run=flower_run, reason=reason, opened=now))

    def _progress(self) -> str:
        without = f", without {', '.join(sorted(self._without))}" if self._without else ""
        return f"round {self._round} of {self._order.rounds}: {self._task.value}{without}"

    def _set_state(self, state: str, detail: str) -> None:
        with self._database.write() as session:
            self._update_run(session.get_one(RunRow, self._order.run), state, detail)

    def _update_run(self, row: RunRow, state: str, detail: str) -> None:
        if row.state in runs.OPEN:  # a run stopped by hand stays stopped
            row.state, row.detail, row.updated = state, detail, print_time(self._clock())


def weighted_mean(metrics: Sequence[Metrics]) -> dict[str, float]:
    """The mean of each metric over sites, weighted by their `num-examples`, which itself is summed."""
    total = float(sum(each[WEIGHT] for each in metrics))
    if not total:
        return {}
    names = sorted(set.intersection(*(set(each) for each in metrics)) - {WEIGHT})
    mean = {name: sum(each[name] * each[WEIGHT] for each in metrics) / total for name in names}
    return mean | {WEIGHT: total}


def _in_range(value: float, spec: MetricSpec) -> bool:
    # a site rounds to the permit's digits after it looked at the range
    rounding = 10.0**-spec.digits
    return spec.minimum - rounding <= value <= spec.maximum + rounding


def _typed(array: Array, dtype: np.dtype[np.generic]) -> Array:
    # an average of whole numbers (a batch counter) is rounded back to what the permit says it is
    return (np.rint(array) if dtype.kind == "i" else array).astype(dtype)
