"""The researcher's own test at home: made-up patients of every kind, whom no hospital has, and every model so far.

One container of the job's image scores all models, one task after the other, as the job contract has it. It gets no
network; files go in and come out through the engine, so nothing is mounted.
"""

from __future__ import annotations

import csv
import io
import json
import os
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pyarrow
import pyarrow.parquet

from deploy.demo.failures import DemoFailed
from deploy.demo.lesions import KINDS, maker
from tests.sim.cohort import write_cohort

PATIENTS_OF_A_KIND = 40
SEED = 4242
SCORED_WITHIN_S = 180.0
# each look has the engine start a program of its own that packs a folder
_LOOK_S = 2.0
NOBODY = 65532


def make_patients(folder: Path, of_a_kind: int = PATIENTS_OF_A_KIND) -> Path:
    """Write `folder` as a job sees `/data`: as many studies of each hospital's kind, half of them with a lesion."""
    folder.mkdir(parents=True)
    studies, labels = [], {}
    for site, kind in KINDS.items():
        at = folder / "studies" / site
        at.mkdir(parents=True)
        write_cohort(at, "bench", of_a_kind, SEED, second_study=0, scanner=kind.scanner, make=maker(site))
        with (at / "clinical.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for number, row in enumerate(rows):
            name = f"{site}-{number:03d}"
            where = f"studies/{site}/{row['PatientID']}/study1"
            studies.append({"study": name, "patient": name, "split": "test", "folder": where})
            labels[name] = int(row["lesion"])
    (folder / "manifest.json").write_text(json.dumps({"studies": studies}), encoding="utf-8")
    table = pyarrow.table({"study": list(labels), "lesion": list(labels.values())})
    pyarrow.parquet.write_table(table, folder / "clinical.parquet")
    return folder


def score(image: str, patients: Path, models: Mapping[str, bytes], config: Mapping[str, Any]) -> dict[str, float]:
    """Each model's AUC over all of these patients, by the model's name. Raises `DemoFailed` if the job gives none."""
    tasks = list(dict.fromkeys(models.values()))  # the untrained model, where every run begins, is scored once
    with _container(image) as (client, container):
        client.put_archive(container, "/", _packed(patients, tasks, config))
        client.start(container)
        deadline = time.monotonic() + SCORED_WITHIN_S
        while (found := _metrics(client, container)).keys() != set(range(1, len(tasks) + 1)):
            ended = not client.inspect_container(container)["State"]["Running"]
            if ended or time.monotonic() > deadline:
                raise DemoFailed("the job's image did not score the models", "see containers/images/job-torch/train.py")
            time.sleep(_LOOK_S)
    return {name: found[tasks.index(model) + 1]["auc"] for name, model in models.items()}


@contextmanager
def _container(image: str) -> Iterator[tuple[Any, Any]]:
    client = docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto", timeout=60)
    container = client.create_container(image, network_disabled=True, user=f"{NOBODY}:{NOBODY}")
    try:
        yield client, container
    finally:
        client.remove_container(container, force=True)
        client.close()


def _packed(patients: Path, models: Sequence[bytes], config: Mapping[str, Any]) -> bytes:
    """`/data` with the patients, `/in/tasks/1…` with a task for each model, and an empty `/out`."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(patients, "data", filter=_readable)
        for number, model in enumerate(models, 1):
            order = {"contract": 1, "task": number, "kind": "evaluate", "round": 0, "config": dict(config)}
            _add(archive, f"in/tasks/{number}/task.json", json.dumps(order).encode())
            _add(archive, f"in/tasks/{number}/model.safetensors", model)
        out = tarfile.TarInfo("out")
        out.type, out.mode, out.uid, out.gid = tarfile.DIRTYPE, 0o755, NOBODY, NOBODY
        archive.addfile(out)
    return packed.getvalue()


def _readable(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mode, member.uid, member.gid = (0o755 if member.isdir() else 0o644), 0, 0
    return member


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    archive.addfile(member, io.BytesIO(content))


def _metrics(client: Any, container: Any) -> dict[int, dict[str, float]]:
    """What lies in `/out` beside a `DONE`, by the task's number."""
    blocks, _ = client.get_archive(container, "/out")
    with tarfile.open(fileobj=io.BytesIO(b"".join(blocks))) as archive:
        files = {member.name: member for member in archive.getmembers() if member.isfile()}
        found = {}
        for name in files:
            folder, _, last = name.rpartition("/")
            content = archive.extractfile(f"{folder}/metrics.json") if last == "DONE" else None
            if content is not None:
                found[int(folder.rpartition("/")[2])] = json.load(content)
    return found
