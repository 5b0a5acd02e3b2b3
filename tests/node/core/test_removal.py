"""What no version holds any more goes from the disk; what one holds stays, whichever version it is."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from mediator import canonical
from mediator.audit import Action, Verdict
from mediator.errors import UsageFault
from mediator.import_orders import IngestOrder
from mediator.manifests import AnyManifest, ManifestV2
from node.core.context import event
from node.core.datasets.publish import folder_of, publish_version
from node.core.datasets.removal import remove_unheld, withdraw
from node.core.imports.imports import Imports
from node.host.versions import job_view, read_manifest
from node.kit.synthetic import plain_shape, write_version
from tests.mediator import samples
from tests.node.core.desk import Desk
from tests.node.core.handover import (
    ACCOUNT,
    NEWER,
    PROJECT,
    bring,
    study,
    take,
    write_import,
    write_study,
    write_table,
)

STEWARD = "data_steward"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path, documents=False)
    yield made
    made.core.store.close()


def keep(desk: Desk, manifest: AnyManifest, folder: str) -> AnyManifest:
    digest = hashlib.sha256(canonical.encode(manifest)).hexdigest()
    with desk.core.store.transaction(desk.now) as tx:
        done = event(Action.DATASET_PUBLISH, manifest.dataset_version, Verdict.DONE)
        assert tx.add_dataset_version(manifest, digest, folder, event=done)
    return manifest


def version_1(desk: Desk) -> AnyManifest:
    """A version from before: its files lie in its own folder."""
    aside = desk.root / "aside"
    manifest = write_version(aside, plain_shape(2, 1, {"lesion": "double"}), project=PROJECT)
    manifest = replace(manifest, dataset="images", site=samples.SITE)
    (aside / "manifest.json").unlink()
    (aside / "manifest.json").write_bytes(canonical.encode(manifest))
    (desk.root / "datasets" / PROJECT).mkdir(exist_ok=True)
    aside.rename(desk.root / "datasets" / folder_of(manifest))
    return keep(desk, manifest, folder_of(manifest))


def version_2(desk: Desk, *numbers: int, known: bool = True) -> ManifestV2:
    handover, datasets = desk.root / "handover" / "by-hand", desk.root / "datasets"
    for number in numbers:
        write_study(handover, number)
    tables = {"clinical.parquet": write_table(handover, numbers)}
    held = [take(handover, datasets, number) for number in numbers]
    made = publish_version(ACCOUNT, held, tables, datasets, created=desk.now, supersedes=None)
    if known:
        keep(desk, made, folder_of(made))
    return made


def root(manifest: ManifestV2, number: int) -> str:
    return next(entry.root for entry in manifest.studies if entry.study == study(number).study)


def studies(desk: Desk) -> set[str]:
    return {path.name for path in (desk.root / "datasets" / PROJECT / "studies").iterdir()}


def versions(desk: Desk) -> set[str]:
    return {f"sha256:{path.name}" for path in (desk.root / "datasets" / PROJECT / "versions").iterdir()}


def gone(desk: Desk, version: AnyManifest) -> None:
    withdraw(desk.core, desk.boxes, version.dataset_version, STEWARD)


def view(desk: Desk, manifest: AnyManifest, name: str, split: str = "train") -> int:
    """How many studies a job would see."""
    folder = desk.root / "datasets" / folder_of(manifest)
    made = job_view(folder, read_manifest(folder), split, ["lesion"], desk.root / name)  # type: ignore[arg-type]
    assert {path.name for path in (desk.root / name / "studies").iterdir()} == {each.study for each in made.studies}
    return len(made.studies)


def test_a_withdrawn_version_takes_with_it_what_no_other_holds(desk: Desk) -> None:
    old, first, second = version_1(desk), version_2(desk, 1, 2), version_2(desk, 2, 3)
    assert studies(desk) == {root(first, 1), root(first, 2), root(second, 3)}
    gone(desk, first)
    assert studies(desk) == {root(second, 2), root(second, 3)} and versions(desk) == {second.dataset_version}
    assert (view(desk, second, "a"), view(desk, second, "b", "test"), view(desk, old, "c")) == (1, 1, 2)
    gone(desk, old)
    assert not (desk.root / "datasets" / folder_of(old)).exists()
    assert studies(desk) == {root(second, 2), root(second, 3)}
    gone(desk, second)
    assert studies(desk) == versions(desk) == set()
    with desk.core.store.read() as snapshot:
        rows = snapshot.dataset_versions()
    assert {row.dataset_version for row in rows} == {each.dataset_version for each in (old, first, second)}
    assert all(row.withdrawn for row in rows) and [row.counts["studies"] for row in rows], "ids and numbers stay"
    told = [each for each in desk.log() if each.action == "dataset_withdraw"]
    assert [each.about for each in told] == [each.dataset_version for each in (first, old, second)]


def test_the_view_of_a_running_job_outlives_what_it_was_made_of(desk: Desk) -> None:
    made = version_2(desk, 2)
    view(desk, made, "data")
    gone(desk, made)
    assert (desk.root / "data" / "studies" / study(2).study / "0001.dcm").read_bytes() == b" pixels of 2, 0001.dcm"


def test_nothing_of_an_unknown_version_is_withdrawn(desk: Desk) -> None:
    made = version_2(desk, 1)
    with pytest.raises(UsageFault):
        withdraw(desk.core, desk.boxes, "sha256:" + "0" * 64, STEWARD)
    assert studies(desk) == {root(made, 1)} and not any(each.action == "dataset_withdraw" for each in desk.log())


def test_what_a_crash_left_goes_at_the_next_start(desk: Desk) -> None:
    kept, project = version_2(desk, 1), desk.root / "datasets" / PROJECT
    take(desk.root / "handover" / "by-hand", desk.root / "datasets", 1)
    write_study(desk.root / "handover" / "by-hand", 4)
    take(desk.root / "handover" / "by-hand", desk.root / "datasets", 4)  # and then it crashed
    for leftover in (".order-1.partial", "studies/.x.partial", "versions/.y.removed"):
        (project / leftover / "below").mkdir(parents=True)
        (project / leftover / "below" / "0001.dcm").write_bytes(b"x")
    remove_unheld(desk.core)
    assert studies(desk) == {root(kept, 1)} and versions(desk) == {kept.dataset_version}
    assert not list(project.rglob(".*"))


def test_a_withdrawal_that_got_no_further_than_its_record_is_finished_at_the_next_start(desk: Desk) -> None:
    old, new = version_1(desk), version_2(desk, 1)
    with desk.core.store.transaction(desk.now) as tx:
        for each in (old, new):
            done = event(Action.DATASET_WITHDRAW, each.dataset_version, Verdict.DONE)
            tx.withdraw_dataset_version(each.dataset_version, event=done)
    remove_unheld(desk.core)
    assert studies(desk) == versions(desk) == set()
    assert not (desk.root / "datasets" / folder_of(old)).exists()


def test_a_version_that_the_store_never_heard_of_stays_with_its_studies_and_is_told(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """A database restored from a backup must not cost the datasets that came after it."""
    known, unknown = version_2(desk, 1), version_2(desk, 2, known=False)
    with caplog.at_level(logging.WARNING):
        remove_unheld(desk.core)
    assert studies(desk) == {root(known, 1), root(unknown, 2)} and "in no record" in caplog.text
    manifest = desk.root / "datasets" / folder_of(unknown) / "manifest.json"
    manifest.unlink()
    with caplog.at_level(logging.WARNING):
        remove_unheld(desk.core)
    assert studies(desk) == {root(known, 1), root(unknown, 2)} and "cannot be read" in caplog.text


def test_more_studies_than_are_asked_at_once(desk: Desk) -> None:
    folder = desk.root / "datasets" / PROJECT / "studies"
    made = version_2(desk, 1)
    for number in range(1100):
        (folder / hashlib.sha256(b"%d" % number).hexdigest()).mkdir()
    (folder / "lost+found").mkdir()
    remove_unheld(desk.core)
    assert studies(desk) == {root(made, 1), "lost+found"}


def test_the_store_knows_the_studies_of_a_version_and_that_it_mixes(desk: Desk) -> None:
    handover = desk.root / "handover" / "by-hand"
    for number in (1, 2):
        write_study(handover, number)
    held = [take(handover, desk.root / "datasets", 1), take(handover, desk.root / "datasets", 2, NEWER)]
    more = {"created": desk.now, "supersedes": None, "mixed": True}
    made = publish_version(ACCOUNT, held, {}, desk.root / "datasets", **more)  # type: ignore[arg-type]
    keep(desk, made, folder_of(made))
    with desk.core.store.read() as snapshot:
        assert snapshot.studies_in_use(PROJECT, [each.root for each in held]) == {each.root for each in held}
        assert snapshot.studies_in_use("another", [each.root for each in held]) == frozenset()
    with closing(sqlite3.connect(desk.root / "node.db")) as database:
        rows = database.execute("SELECT profile_fingerprint, engine_version FROM dataset_version").fetchall()
    assert rows == [("mixed", "mixed")]


# --- an order ---------------------------------------------------------------------------------------------------


def ingest(
    desk: Desk, *numbers: int, damage: Callable[[Path], None] = lambda _: None
) -> tuple[str, AnyManifest | None]:
    """An import from the steward's word to its end: (its state and why, the manifest of its version)."""
    imports = Imports(desk.core, "1")

    def make(name: str) -> IngestOrder:
        return IngestOrder(name, samples.SITE, PROJECT, "images", "/data", "eucaim", None, (), 0.0)

    name = imports.give(make, STEWARD)
    handover = desk.root / "handover" / name
    write_import(handover, numbers, name)
    damage(handover)
    bring(imports, name, numbers)
    with desk.core.store.read() as snapshot:
        row = snapshot.find_import(name)
    assert row is not None
    if row.dataset_version is None:
        return f"{row.state.value}: {row.error}", None
    return row.state.value, read_manifest(desk.root / "datasets" / PROJECT / "versions" / row.dataset_version[7:])


def test_the_next_version_of_a_dataset_of_version_1_is_a_version_2(desk: Desk) -> None:
    old = version_1(desk)
    before = (desk.root / "datasets" / folder_of(old) / "manifest.json").read_bytes()
    desk.now += timedelta(hours=1)
    state, made = ingest(desk, 1, 2)
    assert state == "published" and isinstance(made, ManifestV2)
    assert made.supersedes == old.dataset_version
    assert (desk.root / "datasets" / folder_of(old) / "manifest.json").read_bytes() == before
    assert (view(desk, old, "a"), view(desk, made, "b")) == (2, 1)
    desk.now += timedelta(hours=1)
    third = ingest(desk, 1, 2, 3)[1]
    assert third is not None and third.supersedes == made.dataset_version
    with desk.core.store.read() as snapshot:
        folders = [row.folder for row in snapshot.dataset_versions()]
    assert folders == [folder_of(each) for each in (old, made, third)]


def test_an_order_that_does_not_hold_what_it_says_leaves_no_study_behind(desk: Desk) -> None:
    kept = version_2(desk, 1)

    def damage(handover: Path) -> None:
        (handover / study(3).study / "0002.dcm").unlink()

    state, made = ingest(desk, 1, 2, 3, damage=damage)
    assert state.startswith("failed") and made is None
    assert studies(desk) == {root(kept, 1)} and versions(desk) == {kept.dataset_version}


def test_a_withdrawn_version_is_not_published_again(desk: Desk) -> None:
    _, first = ingest(desk, 1)
    assert first is not None
    gone(desk, first)
    desk.now += timedelta(hours=1)
    state, again = ingest(desk, 1)
    assert state.startswith("failed") and "withdrawn" in state and again is None
    assert studies(desk) == versions(desk) == set()
