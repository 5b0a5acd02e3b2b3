"""What it costs to look at every picture, and what is found: `python -m tests.bench.pixel_speed [--json] [--scale N]`.

A mixed corpus of generated files: CT, MR and PET series of 100 to 300 slices, ultrasound cines and stills, large
radiographs and mammograms, screen captures; names are drawn into some, as one slice of a series, a few, a sheet of
text, and where text is usual. Ours is the pixel gate with two readers over all of it. The same gate with every frame
read by the engine (`--ocr every-frame`), which is what one would use instead, goes over a sample of each kind in the
same run. A row for each kind: processor time a file, the ratio, recall (files with text that were blacked out or are
held) and files without text that are held or changed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from mediator.deid.screening import Facts
from node.deid.pixels import Instance, PixelGate, PixelState, PixelVerdict
from node.deid.pixels.reader import ReaderProcess
from tests.bench.figures import cpu_s, show
from tests.sim.pictures import NAME, as_file, cr, dataset, draw, us
from tests.sim.volumes import volume

READERS = 2
# (kind, slices, slices with a name): as hospitals have them, more than nine files of ten are slices
SERIES = (
    ("CT", 300, (211,)), ("CT", 160, ()), ("CT", 100, (0, 1, 2)),
    ("MR", 180, ()), ("MR", 120, (60,)), ("PT", 200, (150,)), ("PT", 100, ()),
)  # fmt: skip
_BRIGHT = {"CT": 1500, "MR": 1600, "PT": 4000, "US": 235, "CR": 4000, "SC": 255}
_SIZES = (10, 12, 14, 20, 28)
# of each kind, what every-frame reading is measured on: the files with text, and so many without
_SAMPLE = 4
_SLICE = ("ORIGINAL", "PRIMARY", "AXIAL")


@dataclass
class Group:
    """Files of one kind that are judged together, and which of them have text."""

    kind: str
    instances: list[Instance]
    drawn: set[int] = field(default_factory=set)


@dataclass
class Row:
    files: int = 0
    drawn: int = 0
    found: int = 0
    flagged: int = 0
    cpu: float = 0.0
    wall: float = 0.0

    def add(self, group: Group, verdicts: tuple[PixelVerdict, ...], cpu: float, wall: float) -> None:
        seen = {place for place, verdict in enumerate(verdicts) if verdict.state is not PixelState.CLEAN}
        self.files, self.drawn = self.files + len(verdicts), self.drawn + len(group.drawn)
        self.found, self.flagged = self.found + len(seen & group.drawn), self.flagged + len(seen - group.drawn)
        self.cpu, self.wall = self.cpu + cpu, self.wall + wall


def corpus(folder: Path, scale: float) -> Iterator[Group]:
    """Written as it is asked for; each group's files are new."""
    for number, (kind, slices, drawn) in enumerate(SERIES):
        count = max(9, int(slices * scale))
        places = {int(place * scale) for place in drawn}
        frames = volume(kind, count, number)
        size = frames.shape[1]
        for order, place in enumerate(sorted(places)):
            height = _SIZES[(number + order) % len(_SIZES)] if size > 300 else 12
            draw(frames[place], NAME[:17], (size // 8, size * (1 + (number + order) % 4) // 6), height, _BRIGHT[kind])
        facts = Facts(modality=kind, has_pixels=True, burned_in="NO", image_type=_SLICE)
        yield _group(folder, kind, [dataset("CT", one, Modality=kind) for one in frames], facts, places)
    yield from _risky(folder)


def _risky(folder: Path) -> Iterator[Group]:
    """Where text is usual."""
    cine = np.stack([np.roll(us(1, 480, 640), shift, axis=1) for shift in range(20)])
    still, plain = us(2, 480, 640), us(3, 480, 640)
    draw(still, NAME[:17], (20, 20), 16, _BRIGHT["US"])
    facts = Facts(modality="US", has_pixels=True, burned_in="NO")
    data = [dataset("US-cine", cine), dataset("US", still), dataset("US", plain)]
    yield _group(folder, "US", data, facts, {1})
    films = [cr(seed, 2000, 1700) for seed in range(3)]
    draw(films[1], NAME[:17], (300, 200), 40, _BRIGHT["CR"])
    yield _group(folder, "CR", [dataset("CR", one) for one in films], Facts(modality="CR", has_pixels=True), {1})
    breast = [dataset("CR", cr(9, 2800, 2200), Modality="MG")]
    yield _group(folder, "MG", breast, Facts(modality="MG", has_pixels=True, burned_in="NO"), set())
    screen = np.full((480, 640), 20, np.uint8)
    for line in range(4):
        draw(screen, (NAME[:17], "DOSE REPORT", "CTDIvol 12.3", "DLP 456")[line], (30, 40 + 60 * line), 18, 255)
    facts = Facts(modality="SC", has_pixels=True, image_type=("DERIVED", "SECONDARY"))
    yield _group(folder, "SC", [dataset("US", screen, Modality="SC")], facts, {0})


def _group(folder: Path, kind: str, data: list[Dataset], facts: Facts, drawn: set[int]) -> Group:
    home = Path(tempfile.mkdtemp(dir=folder))
    return Group(kind, [Instance(as_file(home / f"{n:04d}.dcm", one), facts) for n, one in enumerate(data)], set(drawn))


def sampled(group: Group) -> Group:
    """Every file with text, and a few of the others."""
    rest = [place for place in range(len(group.instances)) if place not in group.drawn]
    chosen = sorted({*group.drawn, *rest[:: max(1, len(rest) // _SAMPLE)][:_SAMPLE]})
    drawn = {number for number, place in enumerate(chosen) if place in group.drawn}
    return Group(group.kind, [group.instances[place] for place in chosen], drawn)


def measure(gate: PixelGate, group: Group, row: Row) -> None:
    before, began = sum(map(cpu_s, gate.reader_pids)), time.monotonic()
    verdicts = gate.examine(group.instances)
    row.add(group, verdicts, sum(map(cpu_s, gate.reader_pids)) - before, time.monotonic() - began)


def warm(gate: PixelGate, folder: Path) -> None:
    """Loads the models of all readers: what is measured is the work."""
    localizers = [dataset("CT", one) for one in volume("CT", 2 * READERS, 99, 64)]
    facts = Facts(modality="CT", has_pixels=True, image_type=(*_SLICE[:2], "LOCALIZER"))
    gate.examine(_group(folder, "CT", localizers, facts, set()).instances)
    assert len(gate.reader_pids) == READERS


def run(scale: float) -> list[dict[str, object]]:
    ours: dict[str, Row] = {}
    theirs: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        quick = PixelGate(readers=[ReaderProcess() for _ in range(READERS)])
        whole = PixelGate(readers=[ReaderProcess() for _ in range(READERS)], every_frame=True)
        with quick, whole:
            warm(quick, folder)
            warm(whole, folder)
            for group in corpus(folder, scale):
                part = sampled(group)
                copies = [Instance(_copied(one.path), one.facts) for one in part.instances]
                measure(quick, group, ours.setdefault(group.kind, Row()))
                measure(whole, Group(group.kind, copies, part.drawn), theirs.setdefault(group.kind, Row()))
    return [*(_told(kind, ours[kind], theirs[kind]) for kind in ours), _told("all", _sum(ours), _weighed(ours, theirs))]


def _copied(path: Path) -> Path:
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes())
    return copy


def _sum(rows: dict[str, Row]) -> Row:
    total = Row()
    for row in rows.values():
        for name in vars(total):
            setattr(total, name, getattr(total, name) + getattr(row, name))
    return total


def _weighed(ours: dict[str, Row], theirs: dict[str, Row]) -> Row:
    """Every-frame reading of as many files of each kind as there are, from what the sample cost."""
    total = _sum(theirs)
    total.cpu = sum(row.cpu / row.files * ours[kind].files for kind, row in theirs.items())
    total.wall = sum(row.wall / row.files * ours[kind].files for kind, row in theirs.items())
    total.files = sum(row.files for row in ours.values())
    return total


def _told(kind: str, ours: Row, theirs: Row) -> dict[str, object]:
    cpu, whole = 1000 * ours.cpu / ours.files, 1000 * theirs.cpu / theirs.files
    return {
        "kind": kind,
        "files": ours.files,
        "files_s": round(ours.files / ours.wall, 1),
        "cpu_ms_a_file": round(cpu, 1),
        "files_s_of_two_free_processors": round(READERS * 1000 / cpu, 1),
        "every_frame_files_s": round(theirs.files / theirs.wall, 1),
        "every_frame_cpu_ms": round(whole, 1),
        "times_faster": round(whole / cpu, 1),
        "with_text": ours.drawn,
        "found": ours.found,
        "every_frame_found": theirs.found,
        "flagged_without_text": ours.flagged,
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--scale", type=float, default=1.0, help="slices of each series, as a share")
    given = arguments.parse_args()
    rows = run(given.scale)
    show("pixel_speed", tuple(rows[0]), rows, as_json=given.json, readers=READERS)


if __name__ == "__main__":
    main()
