"""Whatever a document may say can be refused, written down and answered: nothing legal ends anything but itself.

A run called `lung-2026.11.26.1.2` was legal in an order and could not be recorded; the link asked for it again for ever
and every site was down. Here each document there is comes with odd values, to the real store of a node and a hub's.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from federation import control
from federation.hub.state import HubState
from federation.hub.tables import HubDocumentRow
from mediator import canonical, tensors
from mediator.errors import CloisterError, Code, Denied, HubCode, Malformed
from mediator.permit import open_permit
from mediator.signatures import KeyRing
from mediator.types import Acceptance, DataPermit, Instruction, RevocationList, RunOrder
from node.core.documents.documents import Documents, code_of
from node.core.process import link_server
from node.core.tasks import admit_task
from node.link.process import RemoteCore
from tests.federation import ground
from tests.federation.ground import Town
from tests.mediator import samples
from tests.node.core.desk import Desk
from tests.sim.core import FakeCore
from tests.sim.odd_documents import IDS, odd, sign_plain

_SIGNERS = {
    DataPermit: samples.COMMITTEE, Acceptance: samples.STEWARD, RunOrder: samples.RESEARCHER,
    RevocationList: samples.COMMITTEE, Instruction: samples.HUB,
}  # fmt: skip
_NUMBERS = itertools.count(1)
_SETTINGS = settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node's folder with the sample documents, to be copied."""
    folder = tmp_path_factory.mktemp("ready")
    Desk(folder).core.store.close()
    return folder


@contextlib.contextmanager
def node(ready: Path) -> Iterator[Desk]:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ready, folder, dirs_exist_ok=True)
        desk = Desk(Path(folder), documents=False)
        yield desk
        desk.core.store.close()


def signed(cls: Any, plain: Any) -> str:
    try:
        return sign_plain(_SIGNERS[cls], cls.KIND, plain)
    except Malformed:  # a text that is no Unicode, a number that is none
        return "no document"


def taken(desk: Desk, text: str) -> bool:
    """Whether the node keeps a document; what it refuses, for whatever reason, is foreseen and on record."""
    before = desk.size()
    try:
        desk.documents.receive(text)
    except (Denied, Malformed) as error:
        assert code_of(error) is not Code.INTERNAL, error
        assert desk.log(before)[-1].code == code_of(error)
        return False
    return True


def _sent(**changes: Any) -> Instruction:
    return samples.instruction(**changes)


@_SETTINGS
@given(st.data())
def test_a_node_refuses_or_keeps_every_document_and_answers_every_instruction(ready: Path, data: st.DataObject) -> None:
    with node(ready) as desk:
        _everything_odd(desk, data)


def _everything_odd(desk: Desk, data: st.DataObject) -> None:
    """A permit, its acceptance, an order under it and an instruction, each as odd as the one before let it through."""
    name = f"permit-{next(_NUMBERS)}"
    plain = data.draw(odd(samples.permit(permit=name, permit_version=1, supersedes=None)))
    text = signed(DataPermit, plain)
    about: dict[str, Any] = {"permit": name, "permit_version": 1}
    if taken(desk, text):
        permit = open_permit(text, samples.COMMITTEE_RING)
        about = {"permit": permit.document.permit, "permit_version": permit.document.permit_version}
        taken(desk, signed(Acceptance, data.draw(odd(samples.acceptance(permit).document))))
        taken(desk, samples.acceptance(permit).text)
    run = data.draw(st.sampled_from(IDS[:9])) if data.draw(st.booleans()) else f"run-{name}"
    asked = canonical.to_plain(samples.order(**about)) | {"run": run}
    taken(desk, signed(RunOrder, data.draw(odd(canonical.from_plain(RunOrder, asked)))))
    taken(desk, signed(RunOrder, asked))
    taken(desk, signed(RevocationList, data.draw(odd(samples.revocations()))))
    sent = canonical.to_plain(_sent(run=run, attempt=data.draw(st.integers(1, 1 << 40)), **about))
    for context, each in ((b"one", sent), (b"two", data.draw(odd(canonical.from_plain(Instruction, sent))))):
        before = desk.size()
        answer = admit_task.receive(desk.core, signed(Instruction, each), context, [samples.MODEL])
        assert answer is not HubCode.INTERNAL and desk.size() > before
    desk.watch.look()
    with desk.core.store.read() as snapshot:
        assert not [row for row in snapshot.jobs() if row.code is Code.INTERNAL]


@_SETTINGS
@given(st.data())
def test_a_hub_refuses_or_keeps_every_document_and_goes_on_sending(hub: HubState, data: st.DataObject) -> None:
    """What it keeps fits the events stream, and every other document can still be read."""
    permit = odd(ground.permit(permit=f"odd-{next(_NUMBERS)}"))
    run = data.draw(st.sampled_from(IDS[:9])) if data.draw(st.booleans()) else f"run-{next(_NUMBERS)}"
    texts = [
        (hub.submit_permit, ground.COMMITTEE, DataPermit, data.draw(permit)),
        (_submitted(hub), ground.RESEARCHER, RunOrder, data.draw(odd(ground.order(run)))),
        (hub.submit_local, ground.RESEARCHER, RunOrder, data.draw(odd(ground.order(run, strategy="local", rounds=1)))),
        (hub.submit_revocations, ground.COMMITTEE, RevocationList, data.draw(odd(samples.revocations(permits=())))),
    ]
    for submit, key, cls, plain in texts:
        with contextlib.suppress(CloisterError):
            submit(sign_plain(key, cls.KIND, plain))
    sent = [text for _, text in hub.documents.after(0)]
    for text in sent:
        line = control.encode(control.ControlEvent(kind="document", text=text))
        assert control.decode(control.ControlEvent, line).text == text
    # whatever was kept, an order under another permit is read as before
    asked = ground.RESEARCHER.sign(ground.order("as-before"))
    assert hub.documents.open_order(asked)[0].document.run == "as-before"


def _submitted(hub: HubState) -> Callable[[str], object]:
    return lambda text: hub.submit_order(text, tensors.encode(ground.model()))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> HubState:
    return ground.found(tmp_path_factory.mktemp("hub")).hub


# --- the same on the wire -------------------------------------------------------------------------------------


class NodeCore(FakeCore):
    """A link's core whose documents go to a real node's, over the real socket."""

    def __init__(self, remote: RemoteCore, core: FakeCore) -> None:
        super().__init__(core.site, core.release, core.instruction_keys, core.specs, core.spool)
        self.remote = remote
        self.became: list[str] = []

    async def deliver_document(self, text: str) -> str:
        self.documents.append(text)
        self.became.append(await self.remote.deliver_document(text))
        return self.became[-1]


class Documented:
    """What a core offers its link, as far as documents go."""

    def __init__(self, documents: Documents) -> None:
        self.receive_document = documents.receive

    def __getattr__(self, name: str) -> object:
        raise AssertionError(name)


async def test_an_order_that_no_node_can_take_leaves_the_sites_link_up(tmp_path: Path, town: Town) -> None:
    """A hostile hub sends what its own checks would refuse, at first and for ever; what comes after arrives."""
    desk = Desk(tmp_path / "node", documents=False)
    trust = replace(desk.core.trust, committee=KeyRing([ground.COMMITTEE.verify_key]))
    documents = Documents(replace(desk.core, site="aachen", trust=trust), lambda: None)
    plain = canonical.to_plain(ground.order("good"))
    odd_ones = [
        {"run": "lung-2026.11.26.1.2", "permit_version": 0}, {"run": "1.2.840.113619.2.55.3", "permit_version": -1},
        {"run": "x" * 65}, {"run": "../up"}, {"rounds": 0}, {"config": {"a\0b": 1}}, {"sites": ["aachen"] * 2000},
    ]  # fmt: skip
    texts = [sign_plain(ground.RESEARCHER, RunOrder.KIND, plain | changes) for changes in odd_ones]
    with town.hub.database.write() as session:
        for number, text in enumerate(texts):
            session.add(row_of_a_hostile_hub(f"odd-{number}", text))
    fine = ground.RESEARCHER.sign(ground.order("lung-2026.11.26.1.2"))
    with (
        link_server(tmp_path / "link.sock", Documented(documents), group=None),  # type: ignore[arg-type]
        closing(RemoteCore(tmp_path / "link.sock")) as remote,
    ):
        core = NodeCore(remote, town.core("aachen"))
        async with town.links(core):
            town.hub.submit_order(fine, tensors.encode(ground.model()))
            for _ in range(600):
                if fine in core.documents[: len(core.became)]:
                    break
                await asyncio.sleep(0.05)
            heard = dict(zip(core.documents, core.became, strict=False))
            assert heard[fine] == "accepted", "a run may be called that, and the log can say so"
            assert all(heard[text] == "refused (malformed)" for text in texts)
            assert [core.documents.count(text) for text in texts] == [1] * len(texts), "the stream did not begin anew"
    said = [each for each in desk.log() if each.action == "document_import"]
    assert [each.code for each in said if each.verdict == "refused"] == ["malformed"] * len(texts)
    assert "run-order/lung-2026.11.26.1.2" in [each.about for each in said if each.verdict == "done"]
    desk.core.store.close()


def row_of_a_hostile_hub(name: str, text: str) -> HubDocumentRow:
    received = canonical.print_time(samples.NOW)
    return HubDocumentRow(
        kind=RunOrder.KIND, name=name, sha256="0" * 64, key_id="0" * 32, received=received, expires=None, text=text
    )


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    town = ground.found(tmp_path_factory.mktemp("town"), patience_s=20.0)
    town.start()
    yield town
    town.stop()
