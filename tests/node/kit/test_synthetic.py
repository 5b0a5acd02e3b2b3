"""Made-up dataset versions, read by what reads published ones."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from containers.job.dataset import Dataset
from mediator import canonical
from mediator.admission import check_model
from mediator.errors import Malformed, UsageFault
from mediator.terms import check_config
from mediator.types import DataPermit, Manifest
from node.host.versions import job_view
from node.kit.project import TEMPLATES
from node.kit.synthetic import plain_shape, read_manifest, shape_of, write_version
from node.kit.trial_inputs import least_config, random_model

COLUMNS = {"lesion": "double", "age": "double", "side": "string"}


def made(folder: Path, **changes: object) -> Manifest:
    return write_version(folder, replace(plain_shape(6, 3, COLUMNS), **changes), project="trial")


def test_a_jobs_view_of_it_is_made_as_of_a_published_one(tmp_path: Path) -> None:
    manifest = made(tmp_path / "version")
    job_view(tmp_path / "version", manifest, "train", ("lesion",), tmp_path / "view")
    data = Dataset(tmp_path / "view")
    assert len(data) == 6 and {study.split for study in data.studies} == {"train"}
    assert data.volume(data.studies[0]).shape == (3, 64, 64)
    assert data.spacing(data.studies[0]) == (5.0, 5.0, 5.0)
    assert sorted(data.column("lesion").values()) == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    with pytest.raises(KeyError):
        data.column("age")  # the permit did not name it


def test_the_same_shape_makes_the_same_version(tmp_path: Path) -> None:
    assert made(tmp_path / "one").dataset_version == made(tmp_path / "two").dataset_version


def test_a_manifest_is_all_that_its_shape_needs(tmp_path: Path) -> None:
    made(tmp_path / "published")
    manifest = read_manifest((tmp_path / "published" / "manifest.json").read_bytes())
    shape = shape_of(manifest, 100)
    again = write_version(tmp_path / "again", shape, project="trial")
    assert (again.counts, again.columns) == (manifest.counts, manifest.columns)
    assert [study.split for study in again.studies] == [study.split for study in manifest.studies]
    assert {(study.slices, study.size) for study in shape.studies} == {(3, 64)}


def test_a_large_dataset_is_made_small_in_its_proportions(tmp_path: Path) -> None:
    shape = shape_of(write_version(tmp_path / "v", plain_shape(60, 20, COLUMNS), project="trial"), 12)
    assert [study.split for study in shape.studies].count("train") == 9
    assert [study.split for study in shape.studies].count("test") == 3


@pytest.mark.parametrize(("modality", "lowest"), [("CT", -1024), ("MR", 0), ("PT", 0)])
def test_each_modality_has_its_class_and_its_units(tmp_path: Path, modality: str, lowest: int) -> None:
    manifest = made(tmp_path / "v", modality=modality)
    data = Dataset(tmp_path / "v")
    path = next((tmp_path / "v" / manifest.studies[0].folder).iterdir())
    assert pydicom.dcmread(path).Modality == modality
    volume = data.volume(data.studies[0])
    assert volume.min() >= lowest and volume.dtype == np.float32


def test_nothing_in_it_was_ever_a_person(tmp_path: Path) -> None:
    manifest = made(tmp_path / "v")
    image = pydicom.dcmread(next((tmp_path / "v" / manifest.studies[0].folder).iterdir()))
    assert image.PatientIdentityRemoved == "YES" and image.PatientID == manifest.studies[0].patient
    assert not any(
        image.get(keyword) for keyword in ("PatientName", "PatientBirthDate", "StudyDate", "AccessionNumber")
    )


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"no JSON"])
def test_what_is_no_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(Malformed):
        read_manifest(raw)


def test_a_manifest_without_studies_and_a_column_of_no_type_are_refused(tmp_path: Path) -> None:
    empty = replace(made(tmp_path / "v"), studies=())
    with pytest.raises(UsageFault, match="names no study"):
        read_manifest(canonical.encode(empty))
    with pytest.raises(UsageFault, match="double or string"):
        write_version(tmp_path / "w", plain_shape(2, 2, {"when": "date"}), project="trial")


def test_a_trial_begins_with_what_the_permit_allows() -> None:
    for template in TEMPLATES:
        text = (Path(__file__).parents[3] / "node" / "kit" / "templates" / template / "permit.json").read_text()
        text = text.replace("@NAME@", "trial").replace("@TODAY@", "2026-01-01T00:00:00Z")
        draft = canonical.from_plain(DataPermit, json.loads(text.replace("@EXPIRES@", "2027-01-01T00:00:00Z")))
        assert check_config(draft.config, least_config(draft.config)) == []
        model = random_model(draft.tensors)
        assert check_model(model, hashlib.sha256(model).hexdigest(), sorted(draft.tensors, key=lambda t: t.name)) == []
        assert model == random_model(draft.tensors) != random_model(draft.tensors, seed=1)
