"""The reference analysis: how many patients have a lesion, how bright their images are, and how far the two go apart.

    analyse: config {"misbehave": false}        data column: lesion (0, 1)

`misbehave` is for tests: it leaves a row for each patient, and a picture under the name of a table.
"""

from __future__ import annotations

import sys
from collections import defaultdict

import numpy as np
from cloister_job.contract import Task, Tasks
from cloister_job.dataset import Dataset, Study

WORDS = {0: "no", 1: "yes"}
LESIONS = {"name": "lesions.csv", "what": "frequency_table", "labels": ["lesion"], "count": "patients"}
BRIGHTNESS = {
    "name": "brightness.csv", "what": "magnitude_table", "count": "patients", "value": "brightness",
    "largest": ["first", "second"],
}  # fmt: skip
SUMMARY = {"name": "summary.json", "what": "estimates", "count": "patients"}


def by_patient(data: Dataset) -> dict[str, list[Study]]:
    found = defaultdict(list)
    for study in data.studies:
        found[study.patient].append(study)
    return found


def brightness(data: Dataset, studies: list[Study]) -> float:
    """A patient's mean over all images, above air: HU + 1000 for CT."""
    return float(np.mean([data.volume(study).mean() for study in studies])) + 1000.0


def short(value: float) -> float:
    """Four significant digits: a permit allows no more."""
    return float(f"{value:.4g}")


def tables(data: Dataset, task: Task) -> dict[str, dict[str, dict[str, float]]]:
    """A row for each group: {"no": {"patients": 40, …}, …}; each patient in one of them."""
    lesion, groups = data.column("lesion"), defaultdict(list)
    patients = by_patient(data)
    for number, (_patient, studies) in enumerate(sorted(patients.items()), 1):
        word = WORDS[int(max(lesion[study.id] for study in studies))]
        groups[word].append(brightness(data, studies))
        task.progress(number / len(patients))
    return groups


def write(task: Task, name: str, *rows: list[object]) -> None:
    (task.out / name).write_text("".join(",".join(map(str, row)) + "\n" for row in rows), encoding="ascii")


def analyse(data: Dataset, task: Task) -> None:
    groups = tables(data, task)
    words = sorted(groups)
    write(task, "lesions.csv", ["lesion", "patients"], *([word, len(groups[word])] for word in words))
    everybody = sorted((value for word in words for value in groups[word]), reverse=True)
    sums = [len(everybody), short(sum(everybody)), short(everybody[0]), short(everybody[1])]
    write(task, "brightness.csv", ["patients", "brightness", "first", "second"], sums)
    apart = short(float(np.mean(groups[words[-1]]) - np.mean(groups[words[0]])))
    (task.out / "summary.json").write_text(f'{{"patients": {len(everybody)}, "mean_difference": {apart}}}')
    task.declare([LESIONS, BRIGHTNESS, SUMMARY])


def misbehave(data: Dataset, task: Task) -> None:
    groups = tables(data, task)
    rows = [[word, 1, short(value)] for word in sorted(groups) for value in groups[word]]
    write(task, "lesions.csv", ["lesion", "patients", "brightness"], *rows)
    (task.out / "picture.csv").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000))
    task.declare([LESIONS, {**LESIONS, "name": "picture.csv"}])


def main() -> None:
    for task in Tasks():
        if task.config.get("misbehave", False):
            misbehave(Dataset(), task)
        else:
            analyse(Dataset(), task)


if __name__ == "__main__":
    sys.exit(main())
