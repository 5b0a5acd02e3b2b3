"""One door for signed documents: whoever hands one in, the same is asked, and the log says what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mediator.errors import Code, Denied
from mediator.roles import PERMISSIONS
from mediator.types import Acceptance, DataPermit, RevocationList, RunOrder
from node.core.documents.documents import LINK, MAY_HAND_IN, Documents
from node.core.process import link_server
from node.link.process import RemoteCore
from tests.mediator import samples
from tests.node.core.desk import Desk, Written

STEWARD = "data_steward"
TEXTS = {
    DataPermit.KIND: samples.COMMITTEE.sign(samples.permit(permit="another")),
    RunOrder.KIND: samples.RESEARCHER.sign(samples.order(run="run-9", nonce="nonce-9")),
    RevocationList.KIND: samples.COMMITTEE.sign(samples.revocations(number=9)),
    Acceptance.KIND: samples.acceptance(maximum_rounds=2).text,
}
# signed by the steward, whose key the link never sees: a steward may be wrong, or their key stolen
WRONG = {
    "another_site": (samples.acceptance(site="hospital-b").text, Code.SITE_NOT_NAMED),
    "another_content": (samples.acceptance(permit_sha256="0" * 64).text, Code.PERMIT_NOT_ACCEPTED),
    "no_permit": (samples.acceptance(permit="nobodys").text, Code.PERMIT_MISSING),
    "other_versions": (samples.acceptance(versions=(samples.OTHER_VERSION,)).text, Code.DATASET_NOT_PERMITTED),
}


def held(desk: Desk) -> str | None:
    with desk.core.store.read() as snapshot:
        row = snapshot.acceptance("lesions-2026", samples.permit().permit_version)
    return None if row is None else row.sha256


@pytest.mark.parametrize("by", MAY_HAND_IN)
@pytest.mark.parametrize("kind", TEXTS)
def test_each_peer_hands_in_what_the_table_says_and_nothing_else(desk: Desk, by: str, kind: str) -> None:
    before = desk.size()
    if kind in MAY_HAND_IN[by]:
        assert desk.documents.receive(TEXTS[kind], by=by)
        assert [each.verdict for each in desk.log(before)] == ["done"]
    else:
        with pytest.raises(Denied):
            desk.documents.receive(TEXTS[kind], by=by)
        assert [(each.verdict, each.code) for each in desk.log(before)] == [("refused", "role_not_permitted")]


def test_a_peer_that_the_table_does_not_name_hands_in_nothing(desk: Desk) -> None:
    for text in TEXTS.values():
        with pytest.raises(Denied):
            desk.documents.receive(text, by="auditor")


def test_the_table_and_the_verbs_agree() -> None:
    """A role that may ask the verb is one that the table knows, and the other way round."""
    staff = {role.value for role in PERMISSIONS["documents_import"]}
    assert MAY_HAND_IN.keys() == staff | {LINK}
    accepting = {by for by, kinds in MAY_HAND_IN.items() if Acceptance.KIND in kinds}
    assert accepting == {role.value for role in PERMISSIONS["permit_accept"]}


@pytest.fixture
def link(desk: Desk, tmp_path: Path) -> Iterator[RemoteCore]:
    """The link's own socket, with core's real handlers behind it."""
    desk.site = samples.SITE  # type: ignore[attr-defined]
    desk.receive_document = desk.documents.receive  # type: ignore[attr-defined]
    server = link_server(tmp_path / "link.sock", desk, group=None)  # type: ignore[arg-type]
    server.start()
    core = RemoteCore(tmp_path / "link.sock")
    yield core
    core.close()
    server.stop()


async def test_a_link_cannot_hand_in_a_steward_s_acceptance(desk: Desk, link: RemoteCore) -> None:
    """One that was revoked by a narrower one since, say, or that somebody found in the hub's mail."""
    before, at_first = desk.size(), held(desk)
    wider = samples.acceptance(expires=samples.permit().expires).text
    assert await link.deliver_document(wider) == "refused (role_not_permitted)"
    assert held(desk) == at_first and [each.verdict for each in desk.log(before)] == ["refused"]
    assert await link.deliver_document(TEXTS[RevocationList.KIND]) == "accepted"


@pytest.mark.parametrize("fault", WRONG)
def test_an_acceptance_that_this_node_cannot_enforce_is_refused_at_the_only_door(desk: Desk, fault: str) -> None:
    text, code = WRONG[fault]
    before, at_first = desk.size(), held(desk)
    with pytest.raises(Denied) as denied:
        desk.documents.receive(text, by=STEWARD, actor="data_steward.a.silva")
    assert denied.value.reasons[0].code is code and held(desk) == at_first
    assert [(each.action, each.verdict, each.code) for each in desk.log(before)] == [
        ("document_import", "refused", code.value)
    ]


def test_a_named_person_s_orders_without_end_are_bounded(desk: Desk) -> None:
    """Each is signed by somebody whom the permit names, and would be kept whole."""
    taken, before, most = 0, desk.size(), 10
    documents = Documents(desk.core, lambda: None, most)
    for number in range(most + 5):
        try:
            taken += documents.receive(samples.RESEARCHER.sign(samples.order(run=f"run-{number + 2}")))
        except Denied as denied:
            assert denied.reasons[0].code is Code.TOO_MANY
    assert taken == most - 1, "and one was there"
    assert Written("document_import", "run-order/run-2", "done", "") in desk.log(before)
    with desk.core.store.read() as snapshot:
        assert len(snapshot.run_orders()) == most
    desk.now += samples.DAY / 2 + samples.DAY / 24
    assert documents.receive(samples.RESEARCHER.sign(samples.order(run="run-of-tomorrow")))
