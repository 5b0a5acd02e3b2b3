import hashlib
import os
import shutil
import stat
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest

from mediator import canonical
from mediator.errors import Denied, IntegrityBroken, Malformed
from mediator.import_orders import Column, IngestOrder
from node.core.datasets.publish import folder_of
from node.host.versions import job_view, read_manifest, read_report, read_study
from node.intake.run_import import IntakeFolders
from tests.node.core.handover import publish
from tests.sim.cohort import write_cohort
from tests.sim.intake import taken_in

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
COLUMNS = (Column("lesion", minimum=0, maximum=1), Column("age", maximum=120))


@pytest.fixture
def handover(tmp_path):
    source, rooms = tmp_path / "source", IntakeFolders(tmp_path / "quarantine", tmp_path / "handover")
    source.mkdir()
    rooms.handover.mkdir()
    write_cohort(source, "alpha", 12, seed=4, unlabelled=1)
    order = IngestOrder("order-1", "alpha", "liver", "cohort", str(source), "eucaim", "clinical.csv", COLUMNS, 0.4)
    taken_in(order, rooms)
    return rooms.handover / "order-1"


def files_of(datasets, manifest):
    """Every file of a version with what is said of it."""
    for entry in manifest.studies:
        for file in read_study(datasets / manifest.project, entry.root).files:
            yield datasets / manifest.project / "studies" / entry.root / file.path, file
    for table in manifest.tables:
        yield datasets / folder_of(manifest) / table.path, table


def test_a_version_is_its_content_read_only_and_nothing_is_left_half_done(handover, tmp_path):
    datasets = tmp_path / "datasets"
    manifest = publish(handover, datasets, created=NOW)
    version = datasets / folder_of(manifest)
    assert sorted(os.listdir(datasets / "liver")) == ["studies", "versions"]
    assert os.listdir(version.parent) == [version.name] == [manifest.dataset_version.removeprefix("sha256:")]
    assert set(os.listdir(datasets / "liver" / "studies")) == {entry.root for entry in manifest.studies}
    assert read_manifest(version) == manifest
    for path, file in files_of(datasets, manifest):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256 and path.stat().st_size == file.size_bytes
        assert stat.S_IMODE(path.stat().st_mode) == 0o444 and path.stat().st_nlink == 1
    counts, report = manifest.counts, read_report(handover)
    assert counts["studies"] == counts["train"] + counts["test"] + counts["unlabelled"] == len(manifest.studies)
    assert counts["unlabelled"] == 1 and manifest.columns == {"lesion": "double", "age": "double"}
    assert counts["instances"] == report.instances_published and counts["studies_in"] == report.studies_in
    assert [each.profile_fingerprint for each in manifest.deidentification] == [report.profile_fingerprint]


def test_the_same_content_is_the_same_version_whenever_it_is_published(handover, tmp_path):
    first = publish(handover, tmp_path / "datasets", created=NOW)
    again = publish(handover, tmp_path / "datasets", created=NOW.replace(year=2027))
    elsewhere = publish(handover, tmp_path / "elsewhere", created=NOW.replace(year=2027))
    assert again == first and elsewhere.dataset_version == first.dataset_version


def test_one_changed_byte_or_another_split_is_another_version(handover, tmp_path):
    first = publish(handover, tmp_path / "datasets", created=NOW)
    report = read_report(handover)
    split = "test" if report.studies[0].split != "test" else "train"
    moved = replace(report, studies=(replace(report.studies[0], split=split), *report.studies[1:]))
    (handover / "report.json").chmod(0o600)
    (handover / "report.json").write_bytes(canonical.encode(moved))
    second = publish(handover, tmp_path / "datasets", created=NOW)
    assert second.dataset_version != first.dataset_version
    roots = {entry.root for entry in first.studies}
    assert {entry.root for entry in second.studies} == roots == set(os.listdir(tmp_path / "datasets/liver/studies"))
    file = handover / report.studies[0].folder / "0001.dcm"
    file.chmod(0o600)
    file.write_bytes(file.read_bytes() + b"x")
    assert publish(handover, tmp_path / "datasets", created=NOW).dataset_version != second.dataset_version


def damage(handover, what: str) -> None:
    study = handover / read_report(handover).studies[0].folder
    if what == "missing":
        (study / "0001.dcm").unlink()
    elif what == "more":
        (study / "0009.dcm").write_bytes(b"x")
    elif what == "link":
        (study / "0001.dcm").unlink()
        (study / "0001.dcm").symlink_to("/etc/passwd")
    elif what == "folder link":
        study.rename(handover / "moved")
        study.symlink_to(handover / "moved")
    elif what == "pipe":
        (study / "0001.dcm").unlink()
        os.mkfifo(study / "0001.dcm")
    elif what == "name":
        (study / "0001.dcm").rename(study / "Hartog.dcm")
    else:
        (handover / "clinical.parquet").unlink()


@pytest.mark.parametrize("what", ["missing", "more", "link", "folder link", "pipe", "name", "no table"])
def test_a_handover_that_is_not_what_it_says_publishes_nothing(handover, tmp_path, what):
    damage(handover, what)
    with pytest.raises(IntegrityBroken):
        publish(handover, tmp_path / "datasets", created=NOW)
    assert not list((tmp_path / "datasets").glob("liver/versions/*")), "no version"
    assert not list((tmp_path / "datasets").rglob(".*")), "and nothing half done"


@pytest.mark.parametrize(
    "change",
    [
        {"folder": "../../etc"}, {"study": "Hartog", "folder": "studies/Hartog"}, {"patient": "HX-77001234"},
        {"instances": 0},
    ],
)  # fmt: skip
def test_a_report_with_names_instead_of_pseudonyms_is_refused(handover, tmp_path, change):
    report = read_report(handover)
    forged = replace(report, studies=(replace(report.studies[0], **change), *report.studies[1:]))
    (handover / "report.json").write_bytes(canonical.encode(forged))
    with pytest.raises(Malformed):
        publish(handover, tmp_path / "datasets", created=NOW)
    assert not (tmp_path / "datasets").exists()


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_job_sees_one_split_and_the_permits_columns(handover, tmp_path, split):
    manifest = publish(handover, tmp_path / "datasets", created=NOW)
    version = tmp_path / "datasets" / folder_of(manifest)
    view = job_view(version, manifest, split, ["lesion"], tmp_path / "data")
    chosen = {study.study for study in manifest.studies if study.split == split}
    assert chosen and {study.study for study in view.studies} == chosen == set(
        os.listdir(tmp_path / "data" / "studies")
    )
    assert read_manifest(tmp_path / "data") == view and view.dataset_version == manifest.dataset_version
    table = pq.read_table(tmp_path / "data" / "clinical.parquet")
    assert table.column_names == ["study", "lesion"] and set(table["study"].to_pylist()) == chosen
    on_disk = {str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data").rglob("*") if path.is_file()}
    assert on_disk == {file.path for file in view.files} | {"manifest.json"}
    entry = next(entry for entry in manifest.studies if entry.split == split)
    source = tmp_path / "datasets" / "liver" / "studies" / entry.root / "0001.dcm"
    assert (tmp_path / "data" / entry.folder / "0001.dcm").stat().st_ino == source.stat().st_ino
    for file in view.files:
        assert hashlib.sha256((tmp_path / "data" / file.path).read_bytes()).hexdigest() == file.sha256
    assert stat.S_IMODE((tmp_path / "data" / "studies").stat().st_mode) == 0o755


def test_a_column_the_dataset_does_not_have_is_denied_and_leaves_nothing(handover, tmp_path):
    manifest = publish(handover, tmp_path / "datasets", created=NOW)
    version = tmp_path / "datasets" / folder_of(manifest)
    with pytest.raises(Denied):
        job_view(version, manifest, "train", ["name"], tmp_path / "data")
    assert not (tmp_path / "data").exists()


def break_study(datasets, entry, other, what):
    home = datasets / "liver" / "studies" / entry.root
    if what == "no file":
        (home / "0001.dcm").unlink()
    elif what == "a shorter file":
        (home / "0001.dcm").chmod(0o600)
        (home / "0001.dcm").write_bytes(b"x")
    elif what == "no record":
        (home / "study.json").unlink()
    elif what == "another's record":
        (home / "study.json").unlink()
        shutil.copy(home.with_name(other.root) / "study.json", home)
    elif what == "a changed record":
        plain = canonical.loads((home / "study.json").read_bytes())
        plain["leaves"][0][2] = "0" * 64
        (home / "study.json").unlink()
        (home / "study.json").write_bytes(canonical.dumps(plain))
    elif what == "no study":
        shutil.rmtree(home)
    else:
        home.rename(datasets / "aside")
        home.with_name(other.root).rename(home)
        (datasets / "aside").rename(home.with_name(other.root))


@pytest.mark.parametrize(
    "what",
    ["no file", "a shorter file", "no record", "another's record", "a changed record", "no study", "studies exchanged"],
)
def test_a_version_whose_study_is_not_what_it_was_gives_no_view(handover, tmp_path, what):
    datasets = tmp_path / "datasets"
    manifest = publish(handover, datasets, created=NOW)
    entry, other = [study for study in manifest.studies if study.split == "train"][:2]
    break_study(datasets, entry, other, what)
    with pytest.raises(IntegrityBroken):
        job_view(datasets / folder_of(manifest), manifest, "train", ["lesion"], tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_table_or_a_manifest_that_is_not_its_versions_gives_no_view(handover, tmp_path):
    datasets = tmp_path / "datasets"
    manifest = publish(handover, datasets, created=NOW)
    version = datasets / folder_of(manifest)
    table = (version / "clinical.parquet").read_bytes()
    for changed in (table[:-1], table[:-1] + b"\x00", table + b"\x00", None):
        (version / "clinical.parquet").unlink()
        if changed is not None:
            (version / "clinical.parquet").write_bytes(changed)
        with pytest.raises(IntegrityBroken):
            job_view(version, manifest, "train", ["lesion"], tmp_path / "data")
    text = (version / "manifest.json").read_bytes()
    (version / "manifest.json").unlink()
    (version / "manifest.json").write_bytes(text.replace(b',"train",', b',"test",', 1))
    with pytest.raises(IntegrityBroken):
        read_manifest(version)
