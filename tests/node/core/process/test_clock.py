"""A clock that jumps, or stands a month ahead when core starts: nothing is recorded by it, and a person mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from mediator.audit import Action, Verdict, decode_line
from mediator.errors import Code, Denied, NotNow
from mediator.roles import Role
from mediator.types import CLOCK_TOLERANCE
from node.core import staff
from node.core.clock import ClockWatch
from node.core.context import event
from node.core.core import CoreProcess
from node.core.process import link_server
from node.host.config import NodeConfig
from node.host.keys import read_verify_key
from node.ipc import audit as words
from node.ipc import link
from node.ipc import node as node_words
from node.ipc.channel import Client
from node.ipc.messages import Empty, SignedText
from tests.mediator import samples
from tests.node.core.process.test_process import Served
from tests.sim.runner import FakeRunner

START = datetime.now(UTC)


class Clocks:
    """The machine's two clocks, in a test's hand."""

    def __init__(self) -> None:
        self.wall, self.boot_s = START, 1000.0

    def go(self, **span: float) -> None:
        passed = timedelta(**span)
        self.wall += passed
        self.boot_s += passed.total_seconds()


@contextmanager
def core_by(config: NodeConfig, clocks: Clocks) -> Iterator[Served]:
    """A core with its real sockets, by these clocks."""
    runner = FakeRunner(read_verify_key(config.paths.verdict_public_key), {})
    core = CoreProcess(config, runner, lambda: clocks.wall, lambda: clocks.boot_s)
    core.start()
    servers = [link_server(config.paths.link_socket, core, group=None), *staff.servers(config, core)]
    for server in servers:
        server.start()
    try:
        yield Served(config, core, runner)
    finally:
        for server in servers:
            server.stop()
        core.stop()


def log(served: Served) -> list[tuple[str, str, datetime]]:
    with served.core.core.store.read() as snapshot:
        lines = [decode_line(line.encode()) for line in snapshot.audit_lines(0, 1000)]
    return [(each.action.value, each.actor, each.time) for each in lines]


def accept(served: Served, *, despite_hub: bool = False) -> None:
    with served.client(Role.IT_ADMIN) as client:
        client.call(words.CLOCK_ACCEPT, words.AcceptClock(despite_hub))


def clock(served: Served) -> str:
    with served.client(Role.AUDITOR) as client:
        return client.call(words.LOG_STATE, Empty()).clock


def tell(served: Served, time: datetime) -> None:
    with Client(served.config.paths.link_socket) as hub:
        hub.call(link.HUB_TIME, link.HubTime(time))


def bring_a_permit(served: Served) -> None:
    with Client(served.config.paths.link_socket) as hub:
        hub.call(link.DELIVER_DOCUMENT, SignedText(samples.COMMITTEE.sign(samples.permit())))


@pytest.mark.parametrize("jump", [timedelta(days=400), -timedelta(hours=2)], ids=["ahead", "back"])
def test_no_record_is_written_by_a_clock_that_jumped(config: NodeConfig, jump: timedelta) -> None:
    clocks = Clocks()
    with core_by(config, clocks) as served:
        before = log(served)
        clocks.wall += jump
        with pytest.raises(NotNow, match="jumped"):
            bring_a_permit(served)
        assert log(served) == before and clock(served) == "jumped"
        with served.client(Role.AUDITOR) as client, pytest.raises(NotNow, match="jumped"):
            client.call(node_words.AUDIT_CHECKPOINT, Empty())
        # stopping waits for no record, and none is made at the wrong time
        with served.client(Role.IT_ADMIN) as client:
            paused = client.call(node_words.PAUSE, Empty())
        assert paused.all_ended and not paused.recorded and paused.kept
        assert log(served) == before
        # put right, it goes on by itself, and what was owed is written at the right time
        clocks.wall -= jump
        assert served.core.core.deferred.settle(10)
        assert [action for action, *_ in log(served)[len(before) :]] == ["pause"]
        assert max(time for *_, time in log(served)) - START < CLOCK_TOLERANCE


def test_who_sleeps_and_who_drifts_does_not_jump(config: NodeConfig) -> None:
    clocks = Clocks()
    watch = ClockWatch(lambda: clocks.wall, lambda: clocks.boot_s)
    clocks.go(days=40)
    watch.require(clocks.wall)
    for _ in range(400):  # a minute a day, for a year: corrected, followed
        clocks.go(days=1)
        clocks.wall += timedelta(seconds=60)
        watch.require(clocks.wall)
    clocks.wall += timedelta(seconds=119)
    watch.require(clocks.wall)
    clocks.wall += timedelta(seconds=2)
    with pytest.raises(NotNow):
        watch.require(clocks.wall)


def test_a_clock_that_jumped_and_is_right_is_accepted_by_a_person_on_record(config: NodeConfig) -> None:
    clocks = Clocks()
    with core_by(config, clocks) as served:
        clocks.wall += timedelta(hours=1)
        with pytest.raises(NotNow):
            bring_a_permit(served)
        accept(served)
        bring_a_permit(served)
        assert clock(served) == "right"
        told = [(action, actor) for action, actor, _ in log(served)][-2:]
        assert told == [("clock_accept", "it_admin.unknown"), ("document_import", "core")]


def test_a_clock_that_the_hub_contradicts_is_not_accepted_unless_a_person_says_so(config: NodeConfig) -> None:
    clocks = Clocks()
    with core_by(config, clocks) as served:
        tell(served, START)
        clocks.wall += timedelta(hours=1)
        before = log(served)
        with pytest.raises(Denied) as denied:
            accept(served)
        assert denied.value.reasons[0].code is Code.CLOCK_WENT_BACK
        assert log(served) == before and clock(served) == "jumped"
        accept(served, despite_hub=True)
        assert clock(served) == "right"


def left(config: NodeConfig, clocks: Clocks) -> None:
    with core_by(config, clocks):
        pass


def test_a_core_that_starts_a_month_ahead_waits_for_the_hub_to_agree(config: NodeConfig) -> None:
    clocks = Clocks()
    left(config, clocks)
    clocks.wall += timedelta(days=31)
    with core_by(config, clocks) as served:
        before = log(served)
        assert clock(served) == "far_ahead"
        with pytest.raises(NotNow, match="far past"):
            bring_a_permit(served)
        tell(served, START)  # the hub says that a month has not passed
        with pytest.raises(NotNow, match="far past"):
            bring_a_permit(served)
        assert log(served) == before
        tell(served, clocks.wall + timedelta(seconds=60))
        assert clock(served) == "right"
        bring_a_permit(served)
        assert [action for action, *_ in log(served)[len(before) :]] == [
            "node_start", "checkpoint", "document_import",
        ]  # fmt: skip


def test_a_core_that_starts_a_month_ahead_is_mended_by_a_person(config: NodeConfig) -> None:
    clocks = Clocks()
    left(config, clocks)
    clocks.wall += timedelta(days=31)
    with core_by(config, clocks) as served:
        accept(served)
        bring_a_permit(served)
        assert [action for action, *_ in log(served)[-4:]] == [
            "clock_accept", "node_start", "checkpoint", "document_import",
        ]  # fmt: skip


def test_a_core_that_ends_in_doubt_leaves_nothing_behind(config: NodeConfig) -> None:
    clocks = Clocks()
    left(config, clocks)
    clocks.wall += timedelta(days=400)
    with core_by(config, clocks) as served:
        before = log(served)
    clocks.wall -= timedelta(days=400)
    with core_by(config, clocks) as served:
        assert log(served)[: len(before)] == before
        assert max(time for *_, time in log(served)) - START < CLOCK_TOLERANCE


def test_one_record_from_next_year_holds_nothing_up_once_a_person_accepts_the_clock(config: NodeConfig) -> None:
    """As a log from before there was this watch may have one; the record itself stays."""
    clocks = Clocks()
    with core_by(config, clocks) as served:
        core = served.core.core
        core.store.before_writing = lambda _: None
        with core.store.transaction(START + timedelta(days=365)) as tx:
            tx.record(event=event(Action.NODE_START, "site/x", Verdict.DONE))
        assert newest(served) > START + timedelta(days=364)
        accept(served)
        assert newest(served) - START < CLOCK_TOLERANCE
        assert max(time for *_, time in log(served)) > START + timedelta(days=364)


def test_a_clock_before_the_newest_revocation_list_is_not_accepted(config: NodeConfig) -> None:
    clocks = Clocks()
    with core_by(config, clocks) as served:
        with Client(served.config.paths.link_socket) as hub:
            listed = samples.COMMITTEE.sign(samples.revocations(issued=START))
            hub.call(link.DELIVER_DOCUMENT, SignedText(listed))
        clocks.wall -= timedelta(days=2)
        before = newest(served)
        with pytest.raises(Denied):
            accept(served)
        assert newest(served) == before


def test_who_may_not_accept_a_clock_or_open_an_epoch_changes_nothing(config: NodeConfig) -> None:
    clocks = Clocks()
    with core_by(config, clocks) as served:
        before = log(served)
        asks: list[Callable[[Client], object]] = [
            lambda client: client.call(words.CLOCK_ACCEPT, words.AcceptClock(True)),
            lambda client: client.call(words.EPOCH_OPEN, words.OpenEpoch(True)),
        ]
        for role in (Role.AUDITOR, Role.DATA_STEWARD):
            for ask in asks:
                with served.client(role) as client, pytest.raises(Denied):
                    ask(client)
        assert log(served) == before


def newest(served: Served) -> datetime:
    with served.core.core.store.read() as snapshot:
        found = snapshot.newest_audit_time()
    assert found is not None
    return found
