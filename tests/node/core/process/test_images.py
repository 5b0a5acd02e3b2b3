"""Images as the staff ask core about them: over the real sockets, on a real store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from containers.archive import read_file
from mediator import canonical
from mediator.audit import AuditRecord, decode_line
from mediator.errors import Code, Denied, Malformed, UsageFault
from mediator.images import ImageFacts, read_facts
from mediator.roles import Role
from node.cli.it.image_differences import lineage_of
from node.core.images.handlers import architecture
from node.ipc import images as words
from node.ipc.channel import Client
from node.ipc.messages import Empty
from tests.mediator import samples
from tests.node.core.process.test_process import Served
from tests.sim.images import BASE, Tiny, layer, write


def facts(tmp_path: Path, tiny: Tiny, **other: Any) -> ImageFacts:
    tiny.outer.setdefault("architecture", architecture())
    (found,) = read_file(write(tmp_path / "image.tar", tiny.saved()), architecture=architecture())
    return replace(found.facts, lineage=lineage_of(found.facts), **other)


def add(client: Client, one: ImageFacts) -> words.AddedImage:
    return client.call(words.IMAGE_ADD, words.AddImage(facts=canonical.encode(one).decode()))


def approve(client: Client, image: str, by: str = "a.silva", note: str = "") -> None:
    client.call(words.IMAGE_APPROVE, words.ApproveImage(image=image, by=by, note=note))


def show(client: Client, image: str, against: str | None = None) -> words.ImageAnswer:
    return client.call(words.IMAGE_SHOW, words.AskImage(image=image, against=against))


def listed(client: Client) -> dict[str, words.ImageLine]:
    return {each.image: each for each in client.call(words.IMAGES, Empty())}


def log(served: Served) -> Sequence[AuditRecord]:
    with served.core.core.store.read() as snapshot:
        return [decode_line(line.encode()) for line in snapshot.audit_lines(2, 100)]


def approved(served: Served) -> frozenset[str]:
    with served.core.core.store.read() as snapshot:
        return served.core.core.policy(snapshot).images


def test_an_image_is_added_looked_at_approved_and_withdrawn_and_the_log_names_no_person_who_did_not_sign(
    served: Served, tmp_path: Path
) -> None:
    one = facts(tmp_path, Tiny(), manifest=samples.OTHER_IMAGE)
    with served.client(Role.IT_ADMIN) as client:
        assert add(client, one) == words.AddedImage(image=one.image, new=True)
        assert not add(client, one).new and approved(served) == frozenset()
        answer = show(client, one.image)
        assert read_facts(answer.facts) == one and answer.unfit == () and answer.against is None
        assert show(client, samples.OTHER_IMAGE).line.image == one.image, "its manifest's digest names it too"
        approve(client, one.image, note="looked\x1b[2J at")
        line = listed(client)[one.image]
        assert (line.state, line.approved_by, line.note, line.packages) == (
            "approved",
            "a.silva",
            "looked\\x1b[2J at",
            2,
        )
        assert approved(served) == {one.image, samples.OTHER_IMAGE}
    with served.client(Role.DATA_STEWARD) as client:
        gone = client.call(words.IMAGE_WITHDRAW, words.WithdrawImage(image=one.image, by="b.costa"))
        assert gone.stopped == 0 and approved(served) == frozenset()
        line = listed(client)[one.image]
        assert (line.state, line.approved_by, line.withdrawn_by) == ("withdrawn", "a.silva", "b.costa")
    assert [(each.actor, each.action.value, each.object, each.verdict.value) for each in log(served)] == [
        ("it_admin.unknown", "image_add", one.image, "done"),
        ("it_admin.unknown", "image_approve", one.image, "done"),
        ("data_steward.unknown", "image_withdraw", one.image, "done"),
    ]
    with served.client(Role.IT_ADMIN) as client:
        approve(client, one.image, by="c.reis")
        line = listed(client)[one.image]
        assert (line.approved_by, line.withdrawn_by) == ("c.reis", None) and one.image in approved(served)


def test_an_image_of_which_nothing_is_known_is_not_approved(served: Served) -> None:
    with served.client(Role.IT_ADMIN) as client:
        with pytest.raises(Denied) as denied:
            approve(client, samples.IMAGE)
        assert denied.value.reasons[0].code is Code.IMAGE_NOT_APPROVED and "image add" in denied.value.hint
        assert listed(client) == {}
    assert [(each.action.value, each.verdict.value, each.code) for each in log(served)] == [
        ("image_approve", "refused", "image_not_approved")
    ]


@pytest.mark.parametrize(
    ("tiny", "says"),
    [
        (Tiny(outer={"architecture": "s390x"}), "linux/s390x"),
        (Tiny(inner={}), "no program"),
        (Tiny(inner={"Entrypoint": ["x"], "Volumes": {"/out": {}}}), "volume"),
    ],
)
def test_an_unfit_image_is_refused_by_core_whatever_the_command_line_does(
    served: Served, tmp_path: Path, tiny: Tiny, says: str
) -> None:
    one = facts(tmp_path, tiny)
    with served.client(Role.IT_ADMIN) as client:
        add(client, one)
        assert any(says in reason for reason in show(client, one.image).unfit)
        with pytest.raises(Denied, match=says):
            approve(client, one.image)
    assert approved(served) == frozenset() and log(served)[-1].verdict.value == "refused"


@pytest.mark.parametrize("by", ["", "Ana Silva", "a" * 49, "a/b", "it\nadmin"])
def test_nobody_is_named_so_nothing_is_approved(served: Served, tmp_path: Path, by: str) -> None:
    one = facts(tmp_path, Tiny())
    with served.client(Role.IT_ADMIN) as client:
        add(client, one)
        with pytest.raises(UsageFault):
            approve(client, one.image, by=by)
        with pytest.raises(UsageFault):
            client.call(words.IMAGE_WITHDRAW, words.WithdrawImage(image=one.image, by=by))
    assert approved(served) == frozenset() and len(log(served)) == 1


def test_an_image_by_tag_is_nowhere_taken(served: Served) -> None:
    with served.client(Role.IT_ADMIN) as client:
        for ask in (
            lambda: approve(client, "cloister-job-torch:latest"),
            lambda: show(client, "cloister-job-torch"),
            lambda: client.call(words.IMAGE_WITHDRAW, words.WithdrawImage(image="x:1", by="a")),
        ):
            with pytest.raises(UsageFault, match="digest"):
                ask()
    assert log(served) == []


def test_facts_that_show_another_program_than_the_digests_are_refused(served: Served, tmp_path: Path) -> None:
    """The configuration's hash is the image's id: a command line that lied about what starts would be found out."""
    plain = canonical.to_plain(facts(tmp_path, Tiny()))
    config = json.loads(plain["config"])
    config["config"]["Entrypoint"] = ["/bin/harmless"]
    forged = [
        canonical.dumps(plain | {"config": json.dumps(config)}), canonical.dumps(plain | {"layers": []}),
        canonical.dumps(plain | {"version": 2}), canonical.dumps(plain | {"extra": 1}), b"{}", b"", b"\xc3\xa9",
    ]  # fmt: skip
    with served.client(Role.IT_ADMIN) as client:
        for raw in forged:
            with pytest.raises(Malformed):
                client.call(words.IMAGE_ADD, words.AddImage(facts=raw.decode()))
        assert listed(client) == {}
    assert log(served) == []


def test_the_facts_of_an_approved_image_are_not_replaced(served: Served, tmp_path: Path) -> None:
    one = facts(tmp_path, Tiny())
    with served.client(Role.IT_ADMIN) as client:
        add(client, replace(one, packages=()))
        assert add(client, one).new, "before the approval a better reading counts"
        approve(client, one.image)
        assert not add(client, replace(one, packages=(), lineage="other")).new
        assert read_facts(show(client, one.image).facts) == one


def test_an_image_is_held_against_the_last_approved_of_its_lineage(served: Served, tmp_path: Path) -> None:
    def version(number: int, name: str) -> ImageFacts:
        return facts(tmp_path, Tiny(layers=[layer({**BASE, "v": bytes([number])})], tags=[f"{name}:{number}"]))

    old, other, newer, newest = version(1, "job"), version(2, "other"), version(3, "job"), version(4, "job")
    with served.client(Role.IT_ADMIN) as client:
        for each in (old, newer, other, newest):
            add(client, each)
        assert show(client, newest.image).against is None
        approve(client, old.image)
        approve(client, newer.image)
        approve(client, other.image)
        assert _against(show(client, newest.image)) == newer.image
        client.call(words.IMAGE_WITHDRAW, words.WithdrawImage(image=newer.image, by="a.silva"))
        assert _against(show(client, newest.image)) == old.image
        assert _against(show(client, newest.image, other.image)) == other.image
        add(client, alone := version(5, "alone"))
        assert _against(show(client, alone.image)) == other.image, "without kin, the last approved of all"
        with pytest.raises(Denied):
            show(client, newest.image, samples.IMAGE)


def test_an_approval_from_before_facts_were_kept_stands_and_can_be_withdrawn(served: Served) -> None:
    from mediator.audit import Action, Verdict
    from node.core.context import event

    core = served.core.core
    with core.store.transaction(core.clock()) as tx:
        tx.approve_image(samples.IMAGE, "old", event=event(Action.IMAGE_APPROVE, samples.IMAGE, Verdict.DONE))
    with served.client(Role.IT_ADMIN) as client:
        line = listed(client)[samples.IMAGE]
        assert (line.state, line.size_bytes, line.packages, line.approved_by) == ("approved", None, None, None)
        with pytest.raises(Denied):
            show(client, samples.IMAGE)
        client.call(words.IMAGE_WITHDRAW, words.WithdrawImage(image=samples.IMAGE, by="a.silva"))
    assert approved(served) == frozenset()


def _against(answer: words.ImageAnswer) -> str:
    assert answer.against is not None
    return read_facts(answer.against).image
