"""Flower's own FedAvg and round driver, with signed instructions going out and only enveloped replies coming in."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import httpx
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, Metadata, MetricRecord, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import context_from_proto, run_from_proto
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.runtime_pb2 import PullTaskInputRequest, PushTaskOutputRequest, SendTaskHeartbeatRequest
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.supercore.run import Run

from federation.arrays import Array
from federation.hub.flower.grid import FastGrid, Fetching, to_record, to_tensors
from federation.hub.flower.reading import METRICS, MODEL, read_reply
from federation.hub.flower.superlink import SuperLink, answering
from federation.hub.steering import Reply, ReplyVerdict, Steering
from mediator.types import Kind

log = logging.getLogger("cloister.hub")

INSTRUCTION_RECORD, INSTRUCTION = "cloister", "instruction"
WEIGHT = "num-examples"
_NODES_EVERY_S = 0.5
# an envelope wakes whoever waits for its reply; only an answer without one is seen so late
_SLOWEST_POLL_S = 1.0
# a reply is read up to this much beyond the model sent: a tensor too many is then told by its own code
_TOO_MANY_BYTES = 1 << 20


@dataclass
class _Pending:
    """One site in one exchange: asked under `message_id`, or to be asked (again) at `due`; `away_since` it is not
    connected, which it must be to be asked (`inf` while it is, or while its answer is awaited). Its reply's objects may
    be on their way (`fetching`)."""

    site: str
    message_id: str = ""
    due: float = 0.0
    sent: float = 0.0
    times: int = 0
    away_since: float = math.inf
    reply_id: str = ""
    fetching: Fetching | None = None


class SignedFedAvg(FedAvg):
    """FedAvg over exactly the sites of the order. A message holds the model and the signed instruction, no more:
    what a node needs to know is in what was signed, so Flower's own `server-round` is left out."""

    def __init__(self, steering: Steering, offset: int, run_id: int, task_id: int) -> None:
        super().__init__(weighted_by_key=WEIGHT, arrayrecord_key=MODEL, configrecord_key=INSTRUCTION_RECORD)
        self._steering = steering
        self._offset = offset
        self._run_id, self._task_id = run_id, task_id
        self._task, self._round, self._arrays, self._model_bytes = Kind.EVALUATE, 0, ArrayRecord(), _TOO_MANY_BYTES

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return self.ask(Kind.TRAIN, server_round + self._offset, arrays)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return self.ask(Kind.EVALUATE, server_round + self._offset, arrays)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is None:
            return None, metrics
        averaged = {name: array.numpy() for name, array in arrays.items()}
        return to_record(self._steering.trained(averaged)), metrics

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        metrics = super().aggregate_evaluate(server_round, replies)
        self._steering.evaluated()
        return metrics

    def ask(self, task: Kind, round_: int, arrays: ArrayRecord) -> Iterable[Message]:
        """Begin a task. `exchange` makes the messages, one per site and attempt, so there is none to return yet."""
        self._task, self._round, self._arrays = task, round_, arrays
        model = to_tensors(arrays)
        self._model_bytes = sum(array.nbytes for array in model.values()) + _TOO_MANY_BYTES
        self._steering.begin(round_, task, model)
        return ()

    def exchange(self, grid: FastGrid, _messages: Iterable[Message]) -> list[Message]:
        """The replies that count, one per site, in the order of the sites' names: sums then come out the same.

        Waits until every site of the order is connected, asks each, and goes on until each has been heard, is out of
        this task, or has let its time pass. A site that was away, paused or not ready is asked again. One clock runs
        from the beginning: a site that is away is waited for as long as the run has patience with it, one that was
        asked has the time of a task, and nobody has more than both together. Whoever lets it pass is missing, and the
        others go on where they are enough.
        """
        steering, begun = self._steering, time.monotonic()
        open_, used = {site: _Pending(site) for site in sorted(steering.flower_keys)}, dict[str, Message]()
        nodes, nodes_at, pause_s = dict[bytes, int](), 0.0, steering.poll_s
        while open_:
            now = time.monotonic()
            if now - nodes_at > _NODES_EVERY_S and any(not each.message_id for each in open_.values()):
                nodes, nodes_at = grid.connected(), now
                self._note_absent(open_, nodes, now)
            self._drop_late(open_, used, now, begun)
            started = bool(used) or any(each.times for each in open_.values())
            self._send_due(grid, open_, nodes, now, started)
            happened = self._take_replies(grid, open_, used)
            pause_s = steering.poll_s if happened else min(pause_s * 1.5, _SLOWEST_POLL_S)
            if open_ and steering.nap(pause_s):
                pause_s = steering.poll_s
        steering.enough(sorted(used))
        return [used[site] for site in sorted(used)]

    def _note_absent(self, open_: Mapping[str, _Pending], nodes: Mapping[bytes, int], now: float) -> None:
        for each in open_.values():
            here = each.message_id or self._steering.flower_keys[each.site] in nodes
            each.away_since = math.inf if here else min(each.away_since, now)
        self._steering.waiting([each.site for each in open_.values() if each.away_since < math.inf])

    def _drop_late(self, open_: dict[str, _Pending], used: Mapping[str, Message], now: float, begun: float) -> None:
        """End the task for whoever has let its time pass. Raises `RunStopped` where the others are not enough."""
        steering = self._steering
        patience_s = {site: steering.patience_s(site) for site in open_}
        away = {site: now - each.away_since for site, each in open_.items() if each.away_since < math.inf}
        # nobody waits for a site without credit; but while another is waited for, it may come back as well
        waited = any(patience_s[site] for site in away)
        for site, each in list(open_.items()):
            over = now - begun > steering.timeout_s + patience_s[site]
            unanswered = bool(each.message_id) and now - each.sent > steering.timeout_s
            absent = site in away and away[site] >= patience_s[site] and not (waited and not patience_s[site])
            if over or unanswered or absent:
                steering.missing(site, absent=site in away)
                del open_[site]
                steering.enough(sorted({*used, *open_}))

    def _send_due(
        self, grid: FastGrid, open_: Mapping[str, _Pending], nodes: Mapping[bytes, int], now: float, started: bool
    ) -> None:
        keys = self._steering.flower_keys
        due = [each for each in open_.values() if not each.message_id and each.due <= now and keys[each.site] in nodes]
        if not due or (not started and len(due) < len(open_)):
            return
        messages = [self._message(each.site, nodes[keys[each.site]], again=each.times > 0) for each in due]
        for each, message_id in zip(due, grid.push_messages(messages), strict=True):
            each.message_id, each.sent, each.times = message_id, now, each.times + 1
        self._steering.wake([each.site for each in due])

    def _take_replies(self, grid: FastGrid, open_: dict[str, _Pending], used: dict[str, Message]) -> bool:
        asked = {each.message_id: each for each in open_.values() if each.message_id}
        found = grid.replies(asked) if asked else []
        read = []
        for asked_id, reply_id, tree in found:
            pending = asked.get(asked_id)
            if pending is None or pending.reply_id:
                continue  # a second answer, or one to nothing we asked
            pending.reply_id = reply_id
            if (dropped := self._begin(grid, pending, tree)) is not None:
                read.append((pending, dropped))
        for pending in asked.values():
            if pending.fetching is not None and not pending.fetching.under_way:
                read.append((pending, self._read(pending, pending.fetching)))
        for pending, reply in read:
            verdict, after_s, counted = self._judge(reply)
            pending.reply_id, pending.fetching = "", None
            if verdict is ReplyVerdict.AGAIN:
                pending.message_id, pending.sent, pending.due = "", 0.0, time.monotonic() + after_s
                continue
            del open_[pending.site]
            if counted is not None:
                used[pending.site] = counted
        return bool(found or read)

    def _begin(self, grid: FastGrid, pending: _Pending, tree: ObjectTree) -> Reply | None:
        """Begin to fetch a reply. Objects that no envelope of this site names are not even fetched: it is dropped."""
        envelope = self._steering.envelope(pending.site)
        if tree.children:
            ids = {node.object_id for node in iterate_object_tree(tree)} - {pending.reply_id}
            named = set() if envelope is None else {entry.id for entry in envelope.objects}
            root = tree.children[0].object_id
            if envelope is None or len(tree.children) != 1 or root != envelope.root or ids - named:
                grid.forget(pending.reply_id)
                return Reply(pending.site, root=root)
        pending.fetching = grid.fetching(pending.reply_id, tree)
        return None

    def _read(self, pending: _Pending, fetching: Fetching) -> Reply:
        """A reply's contents. An error that nobody foresaw is about this reply, never about the run of the others."""
        site = pending.site
        try:
            contents = fetching.result()
        except ObjectPullError:
            return Reply(site, away=True)
        except httpx.HTTPStatusError as error:
            # it answers, but not about these objects; one that answers nothing any more is met by the next question
            log.warning("the SuperLink does not give a reply of %s (HTTP %d)", site, error.response.status_code)
            return Reply(site, malformed=True)
        except httpx.HTTPError:
            raise
        except Exception:
            log.exception("a reply of %s met an error nobody foresaw", site)
            return Reply(site, malformed=True)
        return read_reply(site, pending.reply_id, contents, self._model_bytes)

    def _judge(self, reply: Reply) -> tuple[ReplyVerdict, float, Message | None]:
        """What becomes of a reply, after how many seconds its site is asked again, and what Flower averages of it."""
        try:
            counted = self._counted(reply)
        except Exception:
            log.exception("a reply of %s met an error nobody foresaw", reply.site)
            reply, counted = Reply(reply.site, malformed=True), None
        verdict, after_s = self._steering.judge(reply)
        return verdict, after_s, counted if verdict is ReplyVerdict.USED else None

    def _counted(self, reply: Reply) -> Message | None:
        """What Flower averages if this reply counts: made here, out of values that were read."""
        if reply.metrics is None:
            return None
        records = RecordDict()
        if reply.tensors is not None:
            records[MODEL] = to_record(reply.tensors)
        records[METRICS] = MetricRecord(dict(reply.metrics))
        return make_message(self._metadata(SUPERLINK_NODE_ID), records)

    def _message(self, site: str, node_id: int, *, again: bool) -> Message:
        signed = ConfigRecord({INSTRUCTION: self._steering.instruct(site, again=again)})
        return make_message(self._metadata(node_id), RecordDict({MODEL: self._arrays, INSTRUCTION_RECORD: signed}))

    def _metadata(self, node_id: int) -> Metadata:
        metadata = Metadata(
            run_id=self._run_id,
            message_id="",
            src_node_id=SUPERLINK_NODE_ID,
            dst_node_id=node_id,
            reply_to_message_id="",
            group_id=str(self._round),
            created_at=time.time(),
            ttl=self._steering.timeout_s,
            message_type=self._task.value,
            src_task_id=self._task_id,
        )
        metadata.delivered_at = ""
        return metadata


class FlowerRun:
    """One Flower run: its ServerApp task is taken, kept alive and finished by us."""

    def __init__(self, superlink: SuperLink) -> None:
        token = superlink.open_run()
        self._client = superlink.runtime(token)
        with answering():
            given = self._client.PullTaskInput(PullTaskInputRequest())
        self.run: Run = run_from_proto(given.run)
        self.run_id = int(given.run.run_id)
        self._task_id = int(given.task_id)
        self._context: Context = context_from_proto(given.context)
        self._grid = FastGrid(superlink, token, self.run)
        self._heartbeat = HeartbeatSender(self._beat)
        self._heartbeat.start()

    def conduct(self, steering: Steering, model: Mapping[str, Array], begin: int, rounds: int) -> None:
        """Run rounds `begin` to `rounds` with Flower's strategy; `begin` 0 evaluates the untrained model first.

        Raises what the steering raises, or `SuperLinkAway`.
        """
        offset = max(begin, 1) - 1
        strategy = SignedFedAvg(steering, offset, self.run_id, self._task_id)
        self._grid.exchange = strategy.exchange
        app = ServerApp()

        def done(round_: int, arrays: ArrayRecord) -> MetricRecord | None:
            if round_ == 0 and begin == 0:
                replies = self._grid.send_and_receive(strategy.ask(Kind.EVALUATE, 0, arrays))
                strategy.aggregate_evaluate(0, replies)
            if round_ > 0 or begin == 0:
                steering.round_done(round_ + offset if round_ else 0, to_tensors(arrays))
            return None

        @app.main()
        def main(grid: Grid, context: Context) -> None:
            strategy.start(grid, to_record(model), rounds - offset, evaluate_fn=done)

        with answering():
            app(self._grid, self._context)

    def close(self, completed: bool) -> None:
        """Finish the task, and with it the run; the SuperLink then hands out nothing of it any more."""
        if self._heartbeat.is_running:
            self._heartbeat.stop()
        try:
            status = "completed" if completed else "stopped"
            self._client.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=""))
        except httpx.HTTPError:
            pass  # the SuperLink is gone; `stop_runs` ends what is left of this run when it is back
        self._grid.close()
        self._client.close()

    def _beat(self) -> bool:
        try:
            self._client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
        except httpx.HTTPError:
            return False
        return True
