"""The whole intake, on generated and real DICOM with identifiers planted everywhere."""

import os
import stat
from dataclasses import replace

import pyarrow.parquet as pq
import pydicom
import pytest

from mediator.datasets import account_of
from mediator.errors import IntegrityBroken, UsageFault
from mediator.import_orders import Column, IngestOrder, IngestReport, Missed
from node.deid.parts import parts_of
from node.deid.worker_settings import PartsMaker
from node.host.versions import read_report
from node.intake.run_import import IntakeFolders, IntakeKeys
from tests.sim import intake
from tests.sim.cohort import SLICES, write_cohort
from tests.sim.deid_workers import headers_only, no_text_engine, started
from tests.sim.dicom import ct_slice, raw_element, to_bytes
from tests.sim.pictures import NAME, as_file, dataset, draw, us
from tests.sim.planting import plant
from tests.sim.pydicom_files import copy_pydicom_files
from tests.sim.search import search

KEYS = intake.KEYS
COLUMNS = (Column("lesion", minimum=0, maximum=1),)


def rooms(tmp_path) -> IntakeFolders:
    (tmp_path / "handover").mkdir(parents=True, exist_ok=True)
    return IntakeFolders(tmp_path / "quarantine", tmp_path / "handover")


def order_for(folder, **changes) -> IngestOrder:
    order = IngestOrder("order-1", "alpha", "liver", "cohort", str(folder), "eucaim", "clinical.csv", COLUMNS, 0.4)
    return replace(order, **changes)


def steps_of(order: IngestOrder, where: IntakeFolders, keys: IntakeKeys = KEYS, parts: PartsMaker = headers_only):
    return intake.steps_of(order, where, keys, started(parts))


def ingest(
    order: IngestOrder, where: IntakeFolders, keys: IntakeKeys = KEYS, parts: PartsMaker = headers_only
) -> IngestReport:
    return intake.taken_in(order, where, keys, started(parts))


def contents(where: IntakeFolders, order: str = "order-1") -> dict[str, bytes]:
    root = where.handover / order
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    studies = write_cohort(source, "alpha", 24, seed=5, unlabelled=2)
    copy_pydicom_files(source / "pydicom")
    return source, plant(source, 900, seed=5), studies


@pytest.mark.parametrize("profile", ["eucaim", "basic"])
def test_nothing_planted_survives_anywhere_and_the_studies_do(planted, tmp_path, profile, capfd):
    source, tokens, studies = planted
    where, lines = rooms(tmp_path), []
    for progress in steps_of(order_for(source, profile=profile), where):
        lines.append(repr(progress))
    (tmp_path / "talk.txt").write_text("\n".join(lines) + "".join(capfd.readouterr()))
    assert len(tokens) >= 900 and search([tmp_path], tokens) == []
    report = read_report(where.handover / "order-1")
    assert report.studies_published >= studies
    assert "residual_identifier" not in report.instances_excluded and "unreadable" not in report.instances_excluded
    assert report.instances_excluded["secondary_capture"] > 10
    assert report.studies_in == report.studies_published + sum(report.studies_excluded.values())
    assert report.instances_in == report.instances_published + sum(report.instances_excluded.values())
    assert not any(where.quarantine.iterdir())


def test_the_handover_folder_is_what_the_report_says(planted, tmp_path):
    source, _, studies = planted
    where = rooms(tmp_path)
    report = ingest(order_for(source), where)
    root = where.handover / "order-1"
    assert sorted(os.listdir(root)) == ["clinical.parquet", "report.json", "studies"]
    assert report.destroyed == report.instances_in
    for study in report.studies:
        files = sorted(os.listdir(root / study.folder))
        assert files == [f"{number:04d}.dcm" for number in range(1, study.instances + 1)]
        headers = [pydicom.dcmread(root / study.folder / name, stop_before_pixels=True) for name in files]
        assert {header.PatientID for header in headers} == {study.patient}
        assert len({header.StudyInstanceUID for header in headers}) == 1
        assert stat.S_IMODE((root / study.folder / files[0]).stat().st_mode) == 0o640
    cohort = [study for study in report.studies if study.split != "unlabelled"]
    assert len(cohort) == studies - 2 and all(study.instances == SLICES for study in cohort)
    table = pq.read_table(root / "clinical.parquet").to_pylist()
    assert [row["study"] for row in table] == [study.study for study in report.studies]
    assert {tuple(sorted(row)) for row in table} == {("lesion", "patient", "split", "study")}
    assert {row["lesion"] for row in table if row["split"] == "unlabelled"} == {None}


def test_the_split_is_by_patient_and_stays(planted, tmp_path):
    source, _, _ = planted
    report = ingest(order_for(source), rooms(tmp_path))
    sides: dict[str, set[str]] = {}
    for study in report.studies:
        if study.split != "unlabelled":
            sides.setdefault(study.patient, set()).add(study.split)
    assert all(len(side) == 1 for side in sides.values())
    assert {"train", "test"} == set.union(*sides.values())


def test_the_same_input_gives_the_same_bytes_whatever_the_file_names(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "source").mkdir(parents=True)
        write_cohort(tmp_path / name / "source", "alpha", 4, seed=2)
    source = tmp_path / "b" / "source"
    for number, path in enumerate(sorted(source.rglob("*.dcm"), reverse=True)):
        path.rename(source / f"{number:05d}")
    first, second = rooms(tmp_path / "a"), rooms(tmp_path / "b")
    assert ingest(order_for(tmp_path / "a" / "source"), first).studies
    ingest(order_for(source), second)
    assert contents(first) == contents(second)


def test_another_site_key_or_project_joins_nothing(tmp_path):
    (tmp_path / "source").mkdir()
    write_cohort(tmp_path / "source", "alpha", 3, seed=2)
    seen = []
    for number, (key, project) in enumerate([(b"s", "liver"), (b"t", "liver"), (b"s", "lung")]):
        order = order_for(tmp_path / "source", project=project)
        report = ingest(order, rooms(tmp_path / str(number)), IntakeKeys(key * 32, b"q" * 32))
        seen.append({study.patient for study in report.studies} | {study.study for study in report.studies})
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]


def test_a_run_broken_off_anywhere_ends_the_same_when_run_again(tmp_path):
    (tmp_path / "source").mkdir()
    write_cohort(tmp_path / "source", "alpha", 3, seed=2)
    order, whole = order_for(tmp_path / "source"), rooms(tmp_path / "whole")
    steps = list(steps_of(order, whole))
    for stop in range(1, len(steps)):
        where = rooms(tmp_path / f"stop{stop}")
        running = steps_of(order, where)
        for _ in range(stop):
            next(running)
        running.close()
        report = ingest(order, where)
        assert report.instances_published == steps[-1].report.instances_published
        assert contents(where) == contents(whole) and not any(where.quarantine.iterdir())


def test_a_damaged_original_in_quarantine_is_held_back_and_the_rest_goes_on(tmp_path):
    (tmp_path / "source").mkdir()
    write_cohort(tmp_path / "source", "alpha", 2, seed=2, second_study=0)
    order, where = order_for(tmp_path / "source"), rooms(tmp_path)
    running = steps_of(order, where)
    while next(running).total == 0:
        pass
    running.close()
    sealed = next((where.quarantine / "order-1" / "files").iterdir())
    sealed.write_bytes(sealed.read_bytes()[:-1])
    report = ingest(order, where)
    assert report.instances_excluded == {"unreadable": 1}
    assert report.instances_published == 2 * SLICES - 1


def put(source, name, dataset):
    source.mkdir(exist_ok=True)
    (source / name).write_bytes(to_bytes(dataset))


def test_two_patients_in_one_study_publish_none_of_it(tmp_path):
    one, two = ct_slice(), ct_slice()
    two.PatientID, two.SOPInstanceUID = "OTHER-1", "1.2.826.0.1.111.9"
    put(tmp_path / "source", "1", one)
    put(tmp_path / "source", "2", two)
    report = ingest(order_for(tmp_path / "source", clinical=None, columns=()), rooms(tmp_path))
    assert report.studies == () and report.studies_excluded == {"patient_mismatch": 1}
    assert report.instances_excluded == {"patient_mismatch": 2}
    assert sorted(os.listdir(tmp_path / "handover" / "order-1")) == ["clinical.parquet", "report.json"]


@pytest.mark.parametrize("first", ["with", "without"])
def test_an_issuer_that_only_some_files_of_a_study_say_makes_no_second_patient(tmp_path, first):
    with_issuer, without = ct_slice(), ct_slice()
    with_issuer.IssuerOfPatientID, without.SOPInstanceUID = "ST ELSEWHERE", "1.2.826.0.1.111.9"
    put(tmp_path / "source", "1" if first == "with" else "2", with_issuer)
    put(tmp_path / "source", "2" if first == "with" else "1", without)
    report = ingest(order_for(tmp_path / "source", clinical=None, columns=()), rooms(tmp_path))
    assert (report.studies_published, report.instances_published, report.instances_excluded) == (1, 2, {})


def test_what_published_files_lack_is_counted_by_keyword_in_the_datasets_account(tmp_path):
    good, lost = ct_slice(), ct_slice()
    good[0x00181152] = raw_element(0x00181152, "IS", b"14.5")
    lost.RescaleSlope, lost.SOPInstanceUID = "1", "1.2.826.0.1.111.9"
    lost[0x00281053] = raw_element(0x00281053, "DS", b"slope ")
    put(tmp_path / "source", "1", good)
    put(tmp_path / "source", "2", lost)
    report = ingest(order_for(tmp_path / "source", clinical=None, columns=()), rooms(tmp_path))
    assert (report.instances_published, report.instances_excluded) == (1, {"values_unreadable": 1})
    assert report.missed == (Missed("Exposure", 1),)
    assert account_of(report).counts["values_missed.Exposure"] == 1


def test_an_instance_given_twice_is_published_once(tmp_path):
    put(tmp_path / "source", "1", ct_slice())
    put(tmp_path / "source", "2", ct_slice())
    report = ingest(order_for(tmp_path / "source", clinical=None, columns=()), rooms(tmp_path))
    assert (report.instances_published, report.instances_excluded) == (1, {"duplicate_instance": 1})
    assert report.studies[0].split == "unlabelled"


def test_a_missing_patient_id_never_shares_a_pseudonym(tmp_path):
    for number in range(2):
        dataset = ct_slice()
        dataset.PatientID = ""
        dataset.StudyInstanceUID = f"1.2.826.0.1.222.{number}"
        put(tmp_path / "source", str(number), dataset)
    report = ingest(order_for(tmp_path / "source", clinical=None, columns=()), rooms(tmp_path))
    assert report.studies == () and report.studies_excluded == {"patient_id_missing": 2}


def test_a_truncated_file_belongs_to_its_study(tmp_path):
    put(tmp_path / "source", "1", ct_slice())
    path = tmp_path / "source" / "1"
    path.write_bytes(path.read_bytes()[:-10])
    report = ingest(order_for(tmp_path / "source", clinical=None, columns=()), rooms(tmp_path))
    assert report.studies_excluded == {"truncated": 1} and report.instances_published == 0


@pytest.mark.parametrize(
    "changes", [{"source": "/nowhere-Hartog"}, {"clinical": "../Hartog.csv"}, {"clinical": "none"}]
)
def test_an_order_that_cannot_be_carried_out_leaves_no_handover_and_names_nothing(tmp_path, changes):
    put(tmp_path / "source", "1", ct_slice())
    where = rooms(tmp_path)
    with pytest.raises(UsageFault) as caught:
        ingest(order_for(tmp_path / "source", **changes), where)
    assert "Hartog" not in str(caught.value) + caught.value.hint
    assert not (where.handover / "order-1").exists()


def test_an_empty_folder_is_a_fault_and_a_report_that_is_missing_too(tmp_path):
    (tmp_path / "source").mkdir()
    with pytest.raises(UsageFault):
        ingest(order_for(tmp_path / "source"), rooms(tmp_path))
    with pytest.raises(IntegrityBroken):
        read_report(tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"columns": (Column("lesoin", minimum=0, maximum=1),)}, "no column lesoin"),
        ({"clinical": "absent.csv"}, "is not there"),
        ({"columns": (Column("remark", minimum=0),)}, "a value for remark"),
    ],
)  # fmt: skip
def test_a_slip_in_the_clinical_file_is_told_before_a_single_file_is_taken_in(tmp_path, changes, says):
    source, where = tmp_path / "source", rooms(tmp_path)
    source.mkdir()
    write_cohort(source, "alpha", 3, seed=2)
    running = steps_of(order_for(source, **changes), where)
    with pytest.raises(UsageFault, match=says):
        next(running)  # not one step is made
    assert not [path for path in where.quarantine.rglob("*") if path.is_file()] and not list(where.handover.iterdir())


def test_a_source_of_which_nothing_can_be_read_is_told_at_once(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "clinical.csv").write_text("PatientID,StudyInstanceUID,lesion\nP1,1.2,1\n")
    with pytest.raises(UsageFault, match="is empty"):
        next(steps_of(order_for(source), rooms(tmp_path)))
    (source / "link").symlink_to("/etc/passwd")
    with pytest.raises(UsageFault, match="no file in the source folder can be read"):
        next(steps_of(order_for(source), rooms(tmp_path)))


@pytest.mark.parametrize("source", ["relative", "/srv/../etc", "/srv/export/.."])
def test_an_order_names_an_absolute_folder_and_climbs_nowhere(source):
    with pytest.raises(ValueError, match="absolute"):
        order_for(source)


def test_keys_are_not_printed():
    assert "ssss" not in repr(KEYS) and "qqqq" not in repr(KEYS)


def test_an_ultrasound_picture_is_published_without_its_text_or_where_nobody_can_read_not_at_all(tmp_path):
    source = tmp_path / "source"
    write_cohort(source, "alpha", 3, seed=2)
    frame = us(5, 240, 320)
    draw(frame, NAME[:17], (20, 20), 18, 255)
    as_file(source / "ultrasound.dcm", dataset("US", frame, StudyInstanceUID="1.2.3.4.5"))
    read, unread = rooms(tmp_path / "read"), rooms(tmp_path / "unread")
    report = ingest(order_for(source), read, parts=parts_of)
    published = [pydicom.dcmread(path) for path in sorted((read.handover / "order-1").rglob("*.dcm"))]
    ultrasound = next(one for one in published if one.Modality == "US")
    assert ultrasound.pixel_array[22:34, 24:120].max() == ultrasound.pixel_array.min()
    assert ultrasound.BurnedInAnnotation == "NO" and ultrasound.pixel_array.max() > 200
    assert report.instances_excluded == {}
    report = ingest(order_for(source), unread, parts=no_text_engine)
    assert set(report.instances_excluded) == {"pixel_text_not_checked"}
    assert report.instances_excluded["pixel_text_not_checked"] == len(published) > 1
    assert not any((unread.handover / "order-1").rglob("*.dcm"))  # not those either that say they have no text


def test_progress_is_told_in_every_stage(tmp_path):
    for number in range(3):
        dataset = ct_slice()
        dataset.SOPInstanceUID, dataset.SeriesInstanceUID = f"1.2.826.0.1.111.{number + 1}", f"1.2.826.0.1.333.{number}"
        put(tmp_path / "source", str(number), dataset)
    steps = list(steps_of(order_for(tmp_path / "source", clinical=None, columns=()), rooms(tmp_path)))
    assert list(dict.fromkeys(step.stage for step in steps)) == ["take_in", "deidentify", "hand_over", "forget"]
    done = [(step.done, step.total) for step in steps if step.stage == "deidentify"]
    assert done[0] == (0, 3) and done[-1] == (3, 3) and done == sorted(done)


@pytest.mark.parametrize("order", ["12", "21"])
def test_a_term_that_another_file_of_the_study_says_is_a_name_goes_whatever_comes_first(tmp_path, order):
    where, source = rooms(tmp_path), tmp_path / "source"
    source.mkdir()
    for number, name in enumerate(order):
        data = ct_slice()
        data.SOPInstanceUID, data.InstanceNumber, data.SeriesDescription = f"1.2.{number}", number, "HAND CHEST B31"
        data.BodyPartExamined = "HAND"
        if number:
            data.OperatorsName, data.OtherPatientIDs = "Händ^X", "B31"
        (source / name).write_bytes(to_bytes(data))
    report = ingest(order_for(source, clinical=None, columns=()), where)
    assert report.instances_published == 2
    paths = sorted((where.handover / "order-1" / "studies").rglob("*.dcm"))
    said = [(one.SeriesDescription, one.BodyPartExamined) for one in map(pydicom.dcmread, paths)]
    assert said == [("CHEST", "HAND"), ("CHEST", "HAND")]
