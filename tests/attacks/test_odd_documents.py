"""Whatever a document may say can be refused, written down and answered: nothing legal ends anything but itself.

A run called `lung-2026.11.26.1.2` was legal in an order and could not be recorded; the link asked for it again for ever
and every site was down. Here each document there is comes with odd values, to the real store of a node and a hub's.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mediator import canonical
from mediator.errors import Code, Denied, HubCode, Malformed
from mediator.permit import open_permit
from mediator.types import Acceptance, DataPermit, Instruction, RevocationList, RunOrder
from node.core.documents.documents import code_of
from node.core.tasks import admit_task
from tests.mediator import samples
from tests.node.core.desk import Desk
from tests.sim.odd_documents import IDS, odd, sign_plain

_SIGNERS = {
    DataPermit: samples.COMMITTEE, Acceptance: samples.STEWARD, RunOrder: samples.RESEARCHER,
    RevocationList: samples.COMMITTEE, Instruction: samples.HUB,
}  # fmt: skip
_NUMBERS = itertools.count(1)
_SETTINGS = settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
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
