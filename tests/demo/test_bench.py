"""The researcher's own patients: as a job sees a dataset, and scored by the job's image itself."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from containers.job.dataset import Dataset
from deploy.demo import bench, permits
from deploy.demo.failures import DemoFailed
from deploy.demo.images import untrained_model
from deploy.demo.lesions import KINDS
from tests.containers.bench import ENGINE_URL, image_id

A_KIND = 6


def test_a_job_can_read_the_patients_and_every_kind_is_among_them(tmp_path: Path) -> None:
    data = Dataset(bench.make_patients(tmp_path / "data", A_KIND))
    labels = data.column("lesion")
    assert len(data) == len(labels) == A_KIND * len(KINDS)
    for site in KINDS:
        of_site = [study for study in data.studies if study.id.startswith(site)]
        assert [labels[study.id] for study in of_site].count(1) == A_KIND // 2
        assert data.volume(of_site[0]).shape == (3, 64, 64)


def test_what_goes_into_the_container_is_a_task_a_model_and_room_for_answers(tmp_path: Path) -> None:
    patients = bench.make_patients(tmp_path / "data", 2)
    packed = bench._packed(patients, [b"first", b"second"], {"epochs": 1})
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        members = {member.name: member for member in archive.getmembers()}
        order = json.load(archive.extractfile("in/tasks/2/task.json") or io.BytesIO())
        model = archive.extractfile("in/tasks/2/model.safetensors")
        assert model is not None and model.read() == b"second"
    assert order == {"contract": 1, "task": 2, "kind": "evaluate", "round": 0, "config": {"epochs": 1}}
    assert (members["out"].uid, members["out"].mode) == (bench.NOBODY, 0o755)
    assert {member.uid for name, member in members.items() if name != "out"} == {0}


@pytest.mark.engine
def test_the_image_scores_every_model_and_an_untrained_one_knows_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", ENGINE_URL)
    image = image_id("cloister-job-torch")
    model = untrained_model(image, tmp_path).read_bytes()
    patients = bench.make_patients(tmp_path / "data", A_KIND)
    config = json.loads(permits.TRAINING)
    assert bench.score(image, patients, {"one": model, "same": model}, config) == {"one": 0.5, "same": 0.5}
    with pytest.raises(DemoFailed, match="did not score"):
        bench.score(image, patients, {"broken": b"no model"}, config)
