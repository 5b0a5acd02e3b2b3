"""The operator's desk on a hub's folder, without a hub running: enrolment, documents, orders, and what is refused."""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import subprocess
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from safetensors.numpy import save
from sqlalchemy import create_engine, select, text

from federation import control
from federation.client import enrolment
from federation.client.link_state import LinkState
from federation.hub.checkpoints import Checkpoints, RoundCheckpoint, history_text
from federation.hub.config import load_config
from federation.hub.coordinator import Coordinator
from federation.hub.service import serve_hub
from federation.hub.state import HubState
from federation.hub.tables import EventRow, HubBase, RunRow
from federation.older_readers import READERS_TABLE
from mediator import tensors
from mediator.errors import CloisterError, Code, Denied, Malformed, NotNow, UnsupportedVersion, UsageFault
from mediator.permit import open_permit, schema_sha256
from mediator.signatures import KeyRing
from mediator.types import Dtype, RevocationList, TensorSpec
from tests.end_to_end.commands import CLOISTER, ENVIRONMENT, Done, attempt, cloister
from tests.federation.ground import COMMITTEE, RESEARCHER, SITES, Town, found, key, model, order, permit, told
from tests.sim.users import as_user

NOW = datetime.now(UTC).replace(microsecond=0)
MANY = tuple(TensorSpec(f"layer{number}", (4,), Dtype.F32) for number in range(6000))


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    return found(tmp_path_factory.mktemp("town"))


def runs(town: Town) -> list[str]:
    with town.hub.database.read() as session:
        return sorted(session.scalars(select(RunRow.run)))


# --- documents ------------------------------------------------------------------------------------------------


def test_a_permit_by_another_key_is_not_passed_on(town: Town) -> None:
    before = town.hub.documents.newest_sequence()
    forged = permit(permit="forged", issuer=key("x").key_id)
    with pytest.raises(Denied) as caught:
        town.hub.submit_permit(key("x").sign(forged))
    assert caught.value.reasons[0].code == Code.UNTRUSTED_KEY
    assert town.hub.documents.newest_sequence() == before


def test_the_same_permit_again_is_no_fault_and_a_changed_one_is(town: Town) -> None:
    given = permit(permit="again")
    town.hub.submit_permit(COMMITTEE.sign(given))
    sequence = town.hub.documents.newest_sequence()
    town.hub.submit_permit(COMMITTEE.sign(given) + "\n")
    assert town.hub.documents.newest_sequence() == sequence
    with pytest.raises(UsageFault):
        town.hub.submit_permit(COMMITTEE.sign(permit(permit="again", purpose="another")))


def test_a_revocation_lists_number_only_grows(town: Town) -> None:
    town.hub.submit_revocations(COMMITTEE.sign(RevocationList(5, NOW, ("p9",))))
    with pytest.raises(Denied) as caught:
        town.hub.submit_revocations(COMMITTEE.sign(RevocationList(4, NOW, ())))
    assert caught.value.reasons[0].code == Code.REVOCATION_LIST_ROLLED_BACK
    newest = town.hub.documents.newest_revocations()
    assert newest == COMMITTEE.sign(RevocationList(5, NOW, ("p9",)))
    # a node that connects hears of it first, and of no older one
    texts = [text for _, text in town.hub.documents.after(0)]
    assert texts[0] == newest and sum("cmV2b2NhdGlvbi1saXN0" in each or each == newest for each in texts) == 1


def test_expired_documents_are_not_handed_out(town: Town) -> None:
    old = permit(permit="old", not_before=NOW - timedelta(days=3), expires=NOW - timedelta(days=2))
    signed = COMMITTEE.sign(old)
    town.hub.submit_permit(signed)
    assert signed not in [text for _, text in town.hub.documents.after(0)]


# --- run orders -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"image": "sha256:" + "00" * 32}, Code.IMAGE_NOT_PERMITTED),
        ({"schema_sha256": "00" * 32}, Code.RUN_ORDER_MISMATCH),
        ({"rounds": 101}, Code.ROUNDS_EXHAUSTED),
        ({"strategy": "krum"}, Code.RUN_ORDER_MISMATCH),
        ({"sites": ()}, Code.RUN_ORDER_MISMATCH),
        ({"sites": ("aachen", "aachen")}, Code.RUN_ORDER_MISMATCH),
        ({"sites": ("dublin",)}, Code.SITE_NOT_NAMED),
        ({"expires": NOW - timedelta(hours=1)}, Code.RUN_ORDER_EXPIRED),
        ({"permit": "p2"}, Code.PERMIT_MISSING),
        ({"permit_version": 2}, Code.PERMIT_MISSING),
    ],
)
def test_an_order_that_its_permit_does_not_cover_is_refused(town: Town, changes: dict[str, Any], code: Code) -> None:
    before = runs(town)
    with pytest.raises(Denied) as caught:
        town.submit("refused", **changes)
    assert caught.value.reasons[0].code == code
    assert runs(town) == before and not (town.config.state_dir / "checkpoints/refused").exists()


def test_an_order_by_a_person_the_permit_does_not_name_is_refused(town: Town) -> None:
    with pytest.raises(Denied) as caught:
        town.hub.submit_order(key("x").sign(order("stranger")), tensors.encode(model()))
    assert caught.value.reasons[0].code == Code.UNTRUSTED_KEY
    assert "stranger" not in runs(town)


def test_a_model_other_than_the_permits_is_refused(town: Town) -> None:
    extra = model() | {"extra": np.zeros(2, dtype=np.float32)}
    missing = {name: array for name, array in model().items() if name != "layer.bias"}
    for bad in (tensors.encode(extra), tensors.encode(missing), tensors.encode(model()) + b"\0", b""):
        with pytest.raises(Denied):
            town.hub.submit_order(RESEARCHER.sign(order("bad-model")), bad)
    assert "bad-model" not in runs(town)


def test_an_untrained_model_is_kept_in_the_permits_order_whichever_writer_made_it(town: Town) -> None:
    """A safetensors file has no order of its own: the library sorts by type and name."""
    for number, raw in enumerate((save(model()), tensors.encode(dict(reversed(model().items()))))):
        town.hub.submit_order(RESEARCHER.sign(order(f"writer-{number}")), raw)
        assert town.hub.checkpoints.latest(f"writer-{number}") == (-1, tensors.encode(model()))


def test_the_same_order_again_changes_nothing(town: Town) -> None:
    text = RESEARCHER.sign(order("same"))
    town.hub.submit_order(text, tensors.encode(model()))
    with town.hub.database.write() as session:
        session.get_one(RunRow, "same").state = "done"
    town.hub.submit_order(text, tensors.encode(model(9.0)))
    assert town.hub.run_history("same")["state"] == "done"
    assert town.hub.checkpoints.latest("same") == (-1, tensors.encode(model()))
    with pytest.raises(UsageFault):
        town.hub.submit_order(RESEARCHER.sign(order("same", rounds=9)), tensors.encode(model()))


def test_a_site_that_is_not_enrolled_keeps_an_order_from_starting(tmp_path: Path) -> None:
    town = found(tmp_path)
    town.hub.revoke("coimbra")
    with pytest.raises(UsageFault, match="coimbra"):
        town.submit("absent")
    assert runs(town) == []
    with pytest.raises(UsageFault, match="no such run"):
        town.hub.run_history("absent")


def test_a_list_that_forgets_is_not_signed_and_one_that_forks_not_published(town: Town, tmp_path: Path) -> None:
    colleague, own, config = tmp_path / "colleague", tmp_path / "own", tmp_path / "hub.toml"
    for each in (colleague, own):
        cloister("keys", "new", each)
    publics = [file.with_suffix(".pub").read_text().strip() for file in (colleague, own)]
    toml = (town.folder / "hub.toml").read_text()
    config.write_text(toml.replace(COMMITTEE.verify_key.text, '", "'.join(publics)).replace('"hub"', '"other"'))
    cloister("hub", "init", "--config", config)

    def sign(out: str, *words: object) -> Done:
        return attempt("permit", "revocations", "--key", own, "--out", tmp_path / out, *words)

    assert sign("1", "--permit", "p1", "--permit", "p2").code == 0
    sign("x", "--number", 2).fault(2, "follows one")
    sign("x", "--previous", tmp_path / "1", "--restore", "p3").fault(2, "there is no revoked permit p3")
    sign("x", "--previous", tmp_path / "1", "--number", 1).fault(2, "number 1")
    cloister("hub", "revocations", "publish", tmp_path / "1", "--config", config)
    shown = cloister("hub", "revocations", "print", "--config", config)
    assert shown.out.strip() == (tmp_path / "1").read_text().strip()
    (tmp_path / "shown").write_text(shown.out)
    assert sign("2", "--previous", tmp_path / "shown", "--restore", "p1", "--permit", "p3").code == 0
    second = cloister("permit", "show", tmp_path / "2", "--json").json()
    assert (second["permits"], second["restored"], second["version"]) == (["p2", "p3"], ["p1"], 2)
    # a colleague's list follows only where the colleague's key is named
    words = ("permit", "revocations", "--key", colleague, "--out", tmp_path / "3", "--previous", tmp_path / "2")
    attempt(*words).fault(3, "untrusted_key")
    cloister(*words, "--previous-key", own.with_suffix(".pub"), "--number", 3)
    # two lists of one number: whichever comes second is another's
    assert sign("fork", "--permit", "p9").code == 0 and sign("2b", "--previous", tmp_path / "fork").code == 0
    attempt("hub", "revocations", "publish", tmp_path / "2b", "--config", config).fault(3, "revocation_list_forked")
    for name in ("2", "3"):
        cloister("hub", "revocations", "publish", tmp_path / name, "--config", config)
    held = HubState(load_config(config)).documents.revocations()
    assert held is not None and (held.number, held.permits) == (3, {"p2", "p3"})


# --- enrolment ------------------------------------------------------------------------------------------------


def test_a_bundle_made_for_another_node_is_refused(town: Town, tmp_path: Path) -> None:
    bundle = enrolment.load(town.link_folder("aachen")).bundle
    for name in ("tls.key", "flower.key"):
        assert (town.link_folder("aachen") / name).stat().st_mode & 0o777 == 0o600
    verify = key("z").verify_key
    enrolment.make_request(tmp_path / "link", "aachen", release_key=verify, audit_key=verify)
    with pytest.raises(Malformed, match="another"):
        enrolment.install(tmp_path / "link", bundle)
    assert not (tmp_path / "link" / "bundle.json").exists()
    with pytest.raises(UsageFault, match="not enrolled"):
        enrolment.load(tmp_path / "link")


def test_a_request_made_again_keeps_its_keys(tmp_path: Path) -> None:
    verify = key("z").verify_key
    first = control.decode(
        control.EnrolmentRequest, enrolment.make_request(tmp_path, "aachen", release_key=verify, audit_key=verify)
    )
    second = control.decode(
        control.EnrolmentRequest, enrolment.make_request(tmp_path, "aachen", release_key=verify, audit_key=verify)
    )
    assert first.flower_key == second.flower_key


def test_a_site_is_not_enrolled_where_its_bundle_would_have_no_place(town: Town, tmp_path: Path) -> None:
    verify = key("z").verify_key
    request, bundle = tmp_path / "request.json", tmp_path / "bundle.json"
    request.write_bytes(enrolment.make_request(tmp_path / "link", "delft", release_key=verify, audit_key=verify))
    bundle.write_text("another site's")
    words = ("hub", "node", "approve", request, "--config", town.folder / "hub.toml", "--out", bundle)
    attempt(*words).fault(2, "bundle.json is there already")
    assert bundle.read_text() == "another site's"
    assert [node["site"] for node in town.hub.nodes()] == list(SITES)


def test_a_request_changed_on_its_way_is_refused(town: Town, tmp_path: Path) -> None:
    """Whichever of its keys: the id that the site reads out is over all of them."""
    verify = key("z").verify_key
    raw = enrolment.make_request(tmp_path / "link", "delft", release_key=verify, audit_key=verify)
    forged = enrolment.make_request(tmp_path / "forger", "delft", release_key=verify, audit_key=verify)
    forger, read_out = control.decode(control.EnrolmentRequest, forged), told(raw)
    before = control.decode(control.EnrolmentRequest, raw)
    changes = {"request": forger.request, "flower_key": forger.flower_key, "site": "zurich",
               "release_key": key("y").verify_key.text, "audit_key": key("y").verify_key.text}  # fmt: skip
    for name, value in changes.items():
        with pytest.raises(CloisterError) as caught:
            town.hub.approve(control.encode(before.model_copy(update={name: value})), read_out)
        assert caught.value.exit_code in (2, 3)
    assert [node["site"] for node in town.hub.nodes()] == list(SITES)
    with town.hub.database.read() as session:
        refused = session.scalars(
            select(EventRow).where(EventRow.action == "node_approve", EventRow.verdict == "refused")
        )
        assert {(row.object, row.code) for row in refused} == {("delft", "untrusted_key"), ("zurich", "untrusted_key")}
    rows = cloister("hub", "events", "--config", town.folder / "hub.toml", "--json").json()
    assert [row["object"] for row in rows if row["verdict"] == "refused"][:2] == ["delft", "delft"]


def test_a_slip_of_the_pen_is_no_attack(town: Town, tmp_path: Path) -> None:
    """Digits that are missing or none are asked for again, without a record; spaces, dashes and capitals are nobody's
    fault."""
    verify = key("z").verify_key
    raw = enrolment.make_request(tmp_path / "link", "delft", release_key=verify, audit_key=verify)
    request, before = tmp_path / "request.json", town.hub.events(0)
    request.write_bytes(raw)
    words = ("hub", "node", "approve", request, "--config", town.folder / "hub.toml", "--out", tmp_path / "bundle.json")
    for bad in ("", "hallo", told(raw)[:24], told(raw) + "0", told(raw).replace(told(raw)[0], "x")):
        attempt(*words, f"--request-id={bad}").fault(2, "a request id is 32 hexadecimal digits")
    assert town.hub.events(0) == before
    for good in (told(raw).upper(), told(raw).replace(" ", "-"), told(raw).replace(" ", ""), f" {told(raw)}\n"):
        assert control.same_request_id(good, told(raw))
    assert not control.same_request_id(told(raw)[::-1], told(raw))


def test_a_file_that_is_no_request_is_said_to_be_what_it_is(town: Town, tmp_path: Path) -> None:
    verify, config = key("z").verify_key, town.folder / "hub.toml"
    request = tmp_path / "request.json"
    request.write_bytes(enrolment.make_request(tmp_path / "link", "delft", release_key=verify, audit_key=verify))
    own = tmp_path / "own.json"
    own.write_bytes((town.link_folder("aachen") / "bundle.json").read_bytes())
    for file, words in ((config, "it is not JSON"), (own, "it is a node's own enrolment bundle")):
        done = attempt("hub", "node", "approve", file, "--config", config, "--out", tmp_path / "b", "--request-id", "0")
        done.fault(2, file.name, "not an enrolment request", words)
        assert "node enrol request" in done.err
    absent = tmp_path / "absent" / "bundle.json"
    done = attempt("hub", "node", "approve", request, "--config", config, "--out", absent, "--request-id", "0")
    done.fault(2, "there is no folder")
    assert not absent.parent.exists() and [node["site"] for node in town.hub.nodes()] == list(SITES)


def test_the_hub_asks_for_the_id_that_the_site_reads_out(town: Town, tmp_path: Path) -> None:
    verify = key("z").verify_key
    request, bundle = tmp_path / "request.json", tmp_path / "bundle.json"
    request.write_bytes(enrolment.make_request(tmp_path / "link", "delft", release_key=verify, audit_key=verify))
    words = ("hub", "node", "approve", request, "--config", town.folder / "hub.toml", "--out", bundle)
    attempt(*words).fault(2, "nobody to ask for the request id")
    done = attempt(*words, "--request-id", told(request.read_bytes()).replace("0", "1").replace("a", "b"))
    done.fault(3, "the site read out another request id")
    assert verify.key_id in done.err and not bundle.exists()
    last = cloister("hub", "events", "--newest", "1", "--json", "--config", town.folder / "hub.toml").json()
    assert [(row["action"], row["object"], row["verdict"]) for row in last] == [("node_approve", "delft", "refused")]
    assert [node["site"] for node in town.hub.nodes()] == list(SITES)


def test_anothers_flower_key_cannot_be_enrolled(town: Town, tmp_path: Path) -> None:
    verify = key("z").verify_key
    request = control.decode(
        control.EnrolmentRequest, enrolment.make_request(tmp_path, "dublin", release_key=verify, audit_key=verify)
    )
    taken = control.decode(control.EnrolmentBundle, (town.link_folder("aachen") / "bundle.json").read_bytes())
    with pytest.raises(UsageFault, match="Flower key"):
        other = control.encode(request.model_copy(update={"flower_key": taken.flower_key}))
        town.hub.approve(other, told(other))
    assert [node["site"] for node in town.hub.nodes()] == list(SITES)


def test_a_private_key_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    town = found(tmp_path)
    (town.link_folder("aachen") / "tls.key").chmod(0o640)
    with pytest.raises(UsageFault, match="readable by others"):
        enrolment.load(town.link_folder("aachen"))
    (town.config.state_dir / "keys/instruction.key").chmod(0o644)
    with pytest.raises(UsageFault, match="readable by others"):
        town.hub.instruction_key  # noqa: B018


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b'{"version":1,"kind":"wake","text":"","more":1}', Malformed),
        (b'{"version":2,"kind":"wake","text":""}', UnsupportedVersion),
        (b'{"version":1,"kind":"shutdown","text":""}', Malformed),
        (b'{"version":1,"kind":"document","text":"a b"}', Malformed),
        (b'{"version":1,"kind":1}', Malformed),
        (b"[]", Malformed),
        (b"[" * 100_000, Malformed),
        (b"\xff", Malformed),
        (b"", Malformed),
        (b'"' + b"x" * (2 << 20) + b'"', Malformed),
    ],
)
def test_a_message_that_is_not_one_is_refused(raw: bytes, fault: type[CloisterError]) -> None:
    with pytest.raises(fault) as caught:
        control.decode(control.ControlEvent, raw)
    assert "a b" not in caught.value.message


# --- database and configuration -------------------------------------------------------------------------------


def test_the_migrations_make_exactly_the_tables(town: Town) -> None:
    engine = create_engine(f"sqlite:///{town.hub.database.path}")
    with engine.connect() as connection:
        # whose database it is stands beside the models, as Alembic's own table does
        context = MigrationContext.configure(connection, opts={"include_name": lambda name, *_: name != READERS_TABLE})
        assert compare_metadata(context, HubBase.metadata) == []


def test_a_newer_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    town = found(tmp_path)
    with town.hub.database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    before = {path.name for path in town.config.state_dir.iterdir()}
    with pytest.raises(UsageFault, match="newer"):
        HubState(town.config)
    assert {path.name for path in town.config.state_dir.iterdir()} == before


def test_a_hub_is_made_once(town: Town) -> None:
    with pytest.raises(UsageFault):
        HubState.create(town.config)


def test_what_the_operator_did_is_written_down(town: Town) -> None:
    with town.hub.database.read() as session:
        lines = [(row.action, row.object) for row in session.scalars(select(EventRow).order_by(EventRow.sequence))]
    assert lines[:3] == [("node_approve", site) for site in SITES]
    assert ("document_submit", "data-permit/p1@1") in lines


@pytest.mark.parametrize(
    "change",
    [
        ("version = 1", "version = 2"),
        ('name = "hub"', 'name = "hub"\nport = 3'),
        ("committee_keys = [", "committee_keys = []\nothers = ["),
        ("[runs]", "[runs]\nminimum_sites = -1"),
        ("[ingress]", "[ingress"),
    ],
)
def test_a_configuration_with_anything_unknown_is_refused(town: Town, tmp_path: Path, change: tuple[str, str]) -> None:
    good = (town.folder / "hub.toml").read_text()
    assert change[0] in good
    (tmp_path / "hub.toml").write_text(good.replace(*change, 1))
    with pytest.raises(UsageFault):
        load_config(tmp_path / "hub.toml")
    with pytest.raises(UsageFault):
        load_config(tmp_path / "absent.toml")


def test_the_links_notes_forget_what_is_done(tmp_path: Path) -> None:
    notes = LinkState(tmp_path / "notes")
    first, second = notes.add(b"one"), notes.add(b"two")
    notes.done(first)
    notes.node_id = 7
    again = LinkState(tmp_path / "notes")
    assert list(again.pending()) == [(second, b"two")] and again.node_id == 7
    assert not again.used("an.envelope")
    again.use("an.envelope")
    assert LinkState(tmp_path / "notes").used("an.envelope")


# --- models that could never leave ----------------------------------------------------------------------------


def test_a_permit_whose_model_could_never_leave_is_not_published(town: Town) -> None:
    before = town.hub.documents.newest_sequence()
    with pytest.raises(Denied) as caught:
        town.hub.submit_permit(COMMITTEE.sign(permit(permit="large", tensors=MANY)))
    assert caught.value.reasons[0].code == Code.PERMIT_TOO_LARGE
    assert town.hub.documents.newest_sequence() == before


def test_nor_is_a_run_begun_under_one_that_an_older_hub_published(town: Town) -> None:
    signed = open_permit(COMMITTEE.sign(permit(permit="older", tensors=MANY)), KeyRing([COMMITTEE.verify_key]))
    with town.hub.database.write() as session:
        town.hub.documents._add(session, signed, "older@1", signed.document.expires, "test")
    with pytest.raises(Denied) as caught:
        town.submit("too-large", permit="older", schema_sha256=schema_sha256(MANY))
    assert {reason.code for reason in caught.value.reasons} == {Code.PERMIT_TOO_LARGE}
    assert "too-large" not in runs(town)
    # nor one that the older hub had already begun: it stops before its first message
    asked = order("begun-before", permit="older", schema_sha256=schema_sha256(MANY))
    with town.hub.database.write() as session:
        town.hub.documents.add_order(session, town.hub.documents.open_order(RESEARCHER.sign(asked))[0], "test")
    coordinator = Coordinator(town.hub, lambda: pytest.fail("no run is opened"), lambda sites: None)
    with pytest.raises(Denied) as caught:
        coordinator._attempt("begun-before")
    assert {reason.code for reason in caught.value.reasons} == {Code.PERMIT_TOO_LARGE}


def test_a_permit_of_many_tensors_is_kept_and_handed_out(town: Town) -> None:
    signed = COMMITTEE.sign(permit(permit="many", tensors=MANY[:2000]))
    town.hub.submit_permit(signed)
    assert signed in [text for _, text in town.hub.documents.after(0)]


def test_a_run_of_many_rounds_goes_on_where_it_stood(tmp_path: Path) -> None:
    """Its history is longer than any signed document."""
    kept = Checkpoints(tmp_path)
    history = history_text([{"round": number, "text": "x" * 1000} for number in range(1200)])
    digest = hashlib.sha256(b"model").hexdigest()
    kept.put(RoundCheckpoint("long", 1200, 1, digest, NOW, history), b"model")
    assert kept.latest("long") == (1200, b"model")


def test_an_order_before_its_permit_is_told_what_is_missing(town: Town) -> None:
    early = order("early", permit="of-tomorrow")
    submits: list[Callable[[str], object]] = [
        town.hub.submit_local, lambda text: town.hub.submit_order(text, tensors.encode(model())),
    ]  # fmt: skip
    for submit in submits:
        with pytest.raises(Denied) as caught:
            submit(key("x").sign(early))
        assert [str(reason) for reason in caught.value.reasons] == ["permit_missing: this hub holds no of-tomorrow@1"]
        assert "cloister hub permit publish" in caught.value.hint
    assert "early" not in runs(town)


# --- how runs and sites are named on the command line ---------------------------------------------------------


def test_a_run_is_named_by_its_beginning_and_shown_whole_when_piped(tmp_path: Path) -> None:
    town, long = found(tmp_path), "lung-2026.11.26." + "x" * 40
    for run in (long, "lung-2026.11.27", "lung"):
        town.submit(run)
    words = ("--config", tmp_path / "hub.toml")
    listed = cloister("hub", "run", "list", *words).out
    assert [line.split("\t")[0] for line in listed.splitlines()] and long in listed and "…" not in listed
    shown = cloister("hub", "run", "show", "lung-2026.11.26", "--json", *words)
    assert shown.json()["run"] == long and shown.err == f"run {long}\n"
    assert cloister("hub", "run", "show", "lung", "--json", *words).json()["run"] == "lung"
    attempt("hub", "run", "show", "lung-2", *words).fault(2, long, "lung-2026.11.27")
    attempt("hub", "run", "stop", "lung-20", *words).fault(2, "too little")
    attempt("hub", "run", "stop", "lung-2026", *words).fault(2, "2 different ones")
    assert {row["state"] for row in town.hub.list_runs()} == {"submitted"}
    assert f"stopped {long}" in cloister("hub", "run", "stop", "lung-2026.11.26", *words).err
    assert [row["run"] for row in town.hub.list_runs() if row["state"] == "stopped"] == [long]
    attempt("hub", "node", "revoke", SITES[0][:-1], *words).fault(2, "too little")
    assert {row["site"] for row in town.hub.nodes()} == set(SITES)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_another_user_is_told_whose_command_it_is() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = Path(name)
        folder.chmod(0o755)
        town = found(folder)
        state = town.config.state_dir

        def asked(*words: str) -> Done:
            command = [str(CLOISTER), "hub", *words, "--config", str(folder / "hub.toml")]
            ended = subprocess.run(
                as_user(command), capture_output=True, text=True, cwd="/", timeout=60, env=dict(ENVIRONMENT),
                check=False,
            )  # fmt: skip
            return Done(tuple(command), ended.returncode, ended.stdout, ended.stderr)

        for mode in (0o700, 0o755):  # the folder closed, then only what is in it
            state.chmod(mode)
            for words in (("node", "list"), ("init",)):
                asked(*words).fault(2, "the hub's state is not open to this user")
        town.hub.close()


def test_a_hub_is_not_made_of_the_example_as_it_stands(tmp_path: Path) -> None:
    config = tmp_path / "hub.toml"
    text = (Path(__file__).parents[2] / "deploy" / "hub.example.toml").read_text("utf-8")
    words = ("hub", "init", "--config", config)
    config.write_text(text)
    for says, old, new in (
        ("name is the example's", "example-hub", "harbour"),
        ("ingress.hosts: hub.example.org", "hub.example.org", "hub.example"),
        ("trust.committee_keys", "0" * 64, COMMITTEE.verify_key.text),
    ):
        attempt(*words).fault(2, says)
        assert not (tmp_path / "state").exists()
        config.write_text(text := text.replace(old, new))
    assert attempt(*words).code == 0 and (tmp_path / "state" / "hub.db").exists()


async def test_a_state_folder_too_deep_for_its_sockets_is_refused_when_made_and_when_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = found(tmp_path)
    deep = tmp_path / ("x" * 100)
    with pytest.raises(UsageFault, match="too long for the sockets") as caught:
        HubState.create(town.config.model_copy(update={"state_dir": deep}))
    assert "bytes" in caught.value.hint and not deep.exists()
    monkeypatch.setattr(town.hub, "config", town.config.model_copy(update={"state_dir": deep}))
    with pytest.raises(UsageFault, match="too long for the sockets"):
        await serve_hub(town.hub)


async def test_a_second_hub_on_the_same_state_folder_is_refused_and_the_first_keeps_its_sockets(tmp_path: Path) -> None:
    town = found(tmp_path)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as first,
        (town.hub.notify_socket.parent / "lock").open("w") as lock,
    ):
        first.bind(str(town.hub.notify_socket))
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = town.hub.notify_socket.stat()
        with pytest.raises(NotNow, match="running already"):
            await serve_hub(town.hub)
        assert town.hub.notify_socket.stat() == before
