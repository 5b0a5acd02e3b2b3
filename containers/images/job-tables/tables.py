"""The reference analysis: how many patients there are in each of two groups, how bright their images are together,
and how far the groups go apart.

    analyse: config {"cut": "lesion" or "half", "misbehave": false}        data column: lesion (0, 1)

`cut`: those without and with a lesion, or the darker and the brighter half.

`misbehave` is for tests: it leaves a row for each patient, and a picture under the name of a table.
"""

from __future__ import annotations

import sys
from collections import defaultdict

import numpy as np
from cloister_job.contract import Task, Tasks
from cloister_job.dataset import Dataset, Study

WORDS = {"lesion": ("no", "yes"), "half": ("darker", "brighter")}
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


def tables(data: Dataset, task: Task, cut: str) -> dict[str, list[float]]:
    """Each patient's brightness, in one of two groups: {"no": [1012.5, …], "yes": […]}."""
    lesion, patients = data.column("lesion"), by_patient(data)
    found = []
    for number, (_patient, studies) in enumerate(sorted(patients.items()), 1):
        found.append((brightness(data, studies), max(int(lesion[study.id]) for study in studies)))
        task.progress(number / len(patients))
    found.sort()
    first, second = WORDS[cut]
    if cut == "half":
        middle = len(found) // 2
        return {first: [value for value, _ in found[:middle]], second: [value for value, _ in found[middle:]]}
    return {first: [value for value, one in found if not one], second: [value for value, one in found if one]}


def counted(cut: str) -> dict[str, object]:
    return {"name": "groups.csv", "what": "frequency_table", "labels": [cut], "count": "patients"}


def write(task: Task, name: str, *rows: list[object]) -> None:
    (task.out / name).write_text("".join(",".join(map(str, row)) + "\n" for row in rows), encoding="ascii")


def analyse(data: Dataset, task: Task, cut: str) -> None:
    groups = tables(data, task, cut)
    write(task, "groups.csv", [cut, "patients"], *([word, len(values)] for word, values in groups.items()))
    everybody = sorted((value for values in groups.values() for value in values), reverse=True)
    sums = [len(everybody), short(sum(everybody)), short(everybody[0]), short(everybody[1])]
    write(task, "brightness.csv", ["patients", "brightness", "first", "second"], sums)
    first, second = (np.mean(values) for values in groups.values())
    summary = f'{{"patients": {len(everybody)}, "mean_difference": {short(float(second - first))}}}'
    (task.out / "summary.json").write_text(summary, encoding="ascii")
    task.declare([counted(cut), BRIGHTNESS, SUMMARY])


def misbehave(data: Dataset, task: Task, cut: str) -> None:
    groups = tables(data, task, cut)
    rows = [[word, 1, short(value)] for word, values in groups.items() for value in values]
    write(task, "groups.csv", [cut, "patients", "brightness"], *rows)
    (task.out / "picture.csv").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000))
    task.declare([counted(cut), {**counted(cut), "name": "picture.csv"}])


def main() -> None:
    for task in Tasks():
        act = misbehave if task.config.get("misbehave", False) else analyse
        act(Dataset(), task, str(task.config.get("cut", "lesion")))


if __name__ == "__main__":
    sys.exit(main())
