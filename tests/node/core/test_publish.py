import hashlib
import os
import stat
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest

from mediator import canonical
from mediator.datasets import version_id
from mediator.deid.orders import Column, IngestOrder
from mediator.errors import Denied, IntegrityBroken, Malformed
from node.core.datasets.publish import folder_of, publish
from node.host.versions import job_view, read_manifest, read_report
from node.intake.batch import IntakeFolders, IntakeKeys, run_ingest
from tests.sim.cohort import write_cohort
from tests.sim.deid_workers import InProcess

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
COLUMNS = (Column("lesion", minimum=0, maximum=1), Column("age", maximum=120))


@pytest.fixture
def handover(tmp_path):
    source, rooms = tmp_path / "source", IntakeFolders(tmp_path / "quarantine", tmp_path / "handover")
    source.mkdir()
    rooms.handover.mkdir()
    write_cohort(source, "alpha", 12, seed=4, unlabelled=1)
    order = IngestOrder("order-1", "alpha", "liver", "cohort", str(source), "eucaim", "clinical.csv", COLUMNS, 0.4)
    list(run_ingest(order, keys=IntakeKeys(bytes(32), bytes(32)), rooms=rooms, workers=InProcess))
    return rooms.handover / "order-1"


def test_a_version_is_its_content_read_only_and_nothing_is_left_half_done(handover, tmp_path):
    manifest = publish(handover, tmp_path / "datasets", created=NOW)
    version = tmp_path / "datasets" / folder_of(manifest)
    assert os.listdir(version.parent) == [version.name]
    assert read_manifest(version) == manifest and version_id(manifest.files) == manifest.dataset_version
    for file in manifest.files:
        path = version / file.path
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256 and path.stat().st_size == file.size_bytes
        assert stat.S_IMODE(path.stat().st_mode) == 0o444 and path.stat().st_nlink == 1
    counts = manifest.counts
    assert counts["studies"] == counts["train"] + counts["test"] + counts["unlabelled"] == len(manifest.studies)
    assert counts["unlabelled"] == 1 and manifest.columns == {"lesion": "double", "age": "double"}


def test_the_same_content_is_the_same_version_whenever_it_is_published(handover, tmp_path):
    first = publish(handover, tmp_path / "datasets", created=NOW)
    again = publish(handover, tmp_path / "datasets", created=NOW.replace(year=2027))
    elsewhere = publish(handover, tmp_path / "elsewhere", created=NOW.replace(year=2027))
    assert again == first and elsewhere.dataset_version == first.dataset_version


def test_one_changed_byte_or_another_split_is_another_version(handover, tmp_path):
    first = publish(handover, tmp_path / "datasets", created=NOW)
    file = handover / first.files[-1].path
    file.chmod(0o600)
    file.write_bytes(file.read_bytes() + b"x")
    assert publish(handover, tmp_path / "datasets", created=NOW).dataset_version != first.dataset_version


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
    assert list((tmp_path / "datasets" / "liver").iterdir()) == []


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
    image = next(file.path for file in view.files if file.path.endswith(".dcm"))
    assert (tmp_path / "data" / image).stat().st_ino == (version / image).stat().st_ino
    assert stat.S_IMODE((tmp_path / "data" / "studies").stat().st_mode) == 0o755


def test_a_column_the_dataset_does_not_have_is_denied_and_leaves_nothing(handover, tmp_path):
    manifest = publish(handover, tmp_path / "datasets", created=NOW)
    version = tmp_path / "datasets" / folder_of(manifest)
    with pytest.raises(Denied):
        job_view(version, manifest, "train", ["name"], tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_version_that_lost_a_file_gives_no_view(handover, tmp_path):
    manifest = publish(handover, tmp_path / "datasets", created=NOW)
    version = tmp_path / "datasets" / folder_of(manifest)
    (version / next(study.folder for study in manifest.studies if study.split == "train") / "0001.dcm").unlink()
    with pytest.raises(IntegrityBroken):
        job_view(version, manifest, "train", ["lesion"], tmp_path / "data")
    assert not (tmp_path / "data").exists()
