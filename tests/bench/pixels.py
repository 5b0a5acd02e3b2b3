"""How well burned-in text is found, and what it costs: `python -m tests.bench.pixels [--json] [--samples FOLDER]`.

1. Names in eleven scripts on pictures of seven kinds (`tests.sim.lettering`; 539 studies), and studies without any,
   generated and, with `--samples`, real: each goes through the pixel gate. Recall by script, kind, height, contrast,
   angle and slices; studies without text that go to review, or lose pixels, by kind; processor time a picture.
2. `--part cost`: time and memory of the reader process by size of picture.

Found means: nothing passes in which letters can be read, so it was blacked out or a person looks. Exit code 1 where
recall or false flags miss their line.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom

from mediator.deid.screening import Facts
from node.deid.pixels import Instance, PixelGate, PixelState, PixelVerdict
from tests.bench.figures import show
from tests.sim.lettering import KINDS, PACKAGES, SERIES, SLICES, Case, cases, missing_fonts, study
from tests.sim.pictures import as_file, cr, dataset

RECALL = 0.98
# Studies without text that a person has to look at, or that lose pixels.
FALSE_FLAGS = {"CT": 0.02, "MR": 0.02, "PT": 0.02}
FALSE_FLAGS_ELSEWHERE = 0.10
# More of a name's ink than this, left in a picture that passes, can be read.
_LEFT_OVER = 0.15
_DIMENSIONS = ("script", "kind", "height", "contrast", "angle", "slices")

Row = dict[str, Any]


class _Gate:
    """One gate for each process of the pool, started when first asked."""

    one: PixelGate | None = None

    @classmethod
    def examine(
        cls, kind: str, paths: Sequence[Path], facts: Facts | None = None
    ) -> tuple[Sequence[PixelVerdict], float]:
        """The verdicts, and the seconds of processor time that the reader took for them."""
        if cls.one is None:
            cls.one = PixelGate()
            assert cls.one.engine, "the text engine is not installed"
        told = facts or Facts(modality=kind, has_pixels=True, image_type=_image_type(kind))
        before = _cpu_s(cls.one)
        verdicts = cls.one.examine([Instance(path, told) for path in paths])
        return verdicts, max(0.0, _cpu_s(cls.one) - before)


def _image_type(kind: str) -> tuple[str, ...]:
    return ("DERIVED", "SECONDARY") if kind == "OT" else ("ORIGINAL", "PRIMARY")


def with_text(case: Case) -> Row:
    """One study of the set: whether its name was found."""
    frames, masks, legible = study(case)
    with tempfile.TemporaryDirectory() as folder:
        paths = _files(Path(folder), case.kind, frames)
        verdicts, took = _Gate.examine(case.kind, paths)
        left = [
            _ink_left(path, frame, mask)
            for path, frame, mask, verdict in zip(paths, frames, masks, verdicts, strict=True)
            if verdict.state is not PixelState.REVIEW and mask.any()
        ]
    states = sorted({str(verdict.finding or verdict.state) for verdict in verdicts})
    return asdict(case) | {
        "legible": legible,
        "found": all(share <= _LEFT_OVER for share in left),
        "ink_left": round(max(left, default=0.0), 2),
        "states": states,
        "cpu_s": took,
        "pictures": len(frames),
    }


def _files(folder: Path, kind: str, frames: Sequence[npt.NDArray[np.generic]]) -> list[Path]:
    return [
        as_file(folder / f"{number}.dcm", dataset(kind, frame, InstanceNumber=number + 1))
        for number, frame in enumerate(frames)
    ]


def _ink_left(path: Path, frame: npt.NDArray[np.generic], mask: npt.NDArray[np.bool_]) -> float:
    """Which share of the letters and of the two pixels around them is as it was drawn, where it was not black."""
    after = pydicom.dcmread(path).pixel_array
    reached = np.zeros(mask.shape, dtype=bool)
    for rows in range(-2, 3):
        for columns in range(-2, 3):
            reached |= np.roll(mask, (rows, columns), axis=(0, 1))
    told = reached & ((frame != frame.min()) if frame.ndim == 2 else frame.any(axis=2))
    same = (after == frame) if frame.ndim == 2 else (after == frame).all(axis=2)
    return float(same[told].mean()) if told.any() else 0.0


def without_text(asked: tuple[str, int]) -> Row:
    """One generated study without text: whether it passes as it is."""
    kind, seed = asked
    levels = range(SERIES) if kind in SLICES and seed % 2 else range(1)
    make = KINDS[kind]
    frames = [make(seed, level=level) if kind in SLICES else make(seed) for level in levels]
    with tempfile.TemporaryDirectory() as folder:
        verdicts, took = _Gate.examine(kind, _files(Path(folder), kind, frames))
    states = sorted({str(verdict.finding or verdict.state) for verdict in verdicts})
    return {
        "kind": kind,
        "seed": seed,
        "flagged": states != [str(PixelState.CLEAN)],
        "states": states,
        "cpu_s": took,
        "pictures": len(frames),
    }


def samples(root: Path) -> list[Row]:
    """Real studies, by series: what became of each. A person says which of them have text; none is asked here."""
    series: dict[tuple[str, str], list[tuple[Path, Facts]]] = defaultdict(list)
    for path in sorted(root.rglob("*")):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
            if not path.is_file() or "Rows" not in header:
                continue
            facts = Facts(
                modality=str(header.get("Modality", "")),
                has_pixels=True,
                sop_class=str(header.get("SOPClassUID", "")),
                image_type=tuple(header.get("ImageType") or ()),
                has_conversion_type="ConversionType" in header,
            )
        except (pydicom.errors.InvalidDicomError, AttributeError, OSError, ValueError):
            continue
        series[facts.modality, str(header.get("SeriesInstanceUID", path))].append((path, facts))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for (kind, _uid), members in series.items():
            copies = []
            for number, (path, _facts) in enumerate(members):
                copies.append(Path(folder) / f"{number}.dcm")
                copies[-1].write_bytes(path.read_bytes())
            verdicts, took = _Gate.examine(kind, copies, members[0][1])
            states = sorted({str(verdict.finding or verdict.state) for verdict in verdicts})
            first = str(members[0][0].relative_to(root))
            rows.append({"kind": kind, "file": first, "states": states, "cpu_s": took, "pictures": len(members)})
    return rows


def cost() -> list[Row]:
    """One clean radiograph of each size: processor time, and memory of the reader process so far."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, PixelGate() as gate:
        for height, width in ((512, 512), (1400, 1200), (2000, 2000), (3500, 2800)):
            path = as_file(Path(folder) / "one.dcm", dataset("CR", cr(1, height, width)))
            before = _cpu_s(gate)
            state = gate.examine([Instance(path, Facts(modality="CR", has_pixels=True))])[0].state
            took = round(1000 * (_cpu_s(gate) - before))
            rows.append({"size": f"{height} x {width}", "state": str(state), "cpu_ms": took} | _memory_mb(gate))
    return rows


def _cpu_s(gate: PixelGate) -> float:
    if gate.reader_pid is None:
        return 0.0
    fields = Path(f"/proc/{gate.reader_pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _memory_mb(gate: PixelGate) -> dict[str, int]:
    status = Path(f"/proc/{gate.reader_pid}/status").read_text().splitlines() if gate.reader_pid else []
    return {
        f"{line.split(':')[0]}_mb": int(line.split()[1]) >> 10
        for line in status
        if line.startswith(("VmPeak", "VmHWM"))
    }


def _recall(rows: Sequence[Row]) -> list[Row]:
    """By each dimension, and over all."""
    told = [{"dimension": "all", "value": "", "found": sum(row["found"] for row in rows), "of": len(rows)}]
    for dimension in _DIMENSIONS:
        for value in sorted({row[dimension] for row in rows}):
            among = [row["found"] for row in rows if row[dimension] == value]
            told.append({"dimension": dimension, "value": value, "found": sum(among), "of": len(among)})
    return told


def _false_flags(rows: Sequence[Row]) -> list[Row]:
    told = []
    for kind in sorted({row["kind"] for row in rows}):
        among = [row for row in rows if row["kind"] == kind]
        cpu = sum(row["cpu_s"] for row in among) / sum(row["pictures"] for row in among)
        flagged = sum(row["flagged"] for row in among)
        told.append({"kind": kind, "flagged": flagged, "of": len(among), "cpu_ms_a_picture": round(1000 * cpu)})
    return told


def _misses(recall: Sequence[Row], flags: Sequence[Row]) -> list[str]:
    missed = [f"recall {row['found']}/{row['of']}" for row in recall[:1] if row["found"] < RECALL * row["of"]]
    return missed + [
        f"{row['kind']} flagged {row['flagged']}/{row['of']}"
        for row in flags
        if row["flagged"] > FALSE_FLAGS.get(row["kind"], FALSE_FLAGS_ELSEWHERE) * row["of"]
    ]


def _measured(work: Any, asked: Iterable[Any], processes: int) -> list[Row]:
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return list(pool.imap_unordered(work, asked))


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--json", action="store_true", help="one object for each part, every miss named")
    arguments.add_argument("--part", choices=("text", "clean", "cost", "samples"), help="only this")
    arguments.add_argument("--every", type=int, default=1, metavar="N", help="only each Nth study")
    arguments.add_argument("--clean", type=int, default=50, metavar="N", help="studies without text of each kind")
    arguments.add_argument("--samples", type=Path, metavar="FOLDER", help="real files, told one by one")
    arguments.add_argument("--processes", type=int, default=2)
    given = arguments.parse_args()
    parts = (given.part,) if given.part else ("text", "clean", "cost", *(["samples"] if given.samples else []))
    recall: list[Row] = []
    flags: list[Row] = []
    if "text" in parts:
        if absent := missing_fonts():
            print(f"error: no font {absent[0]}\nhint: apt-get install {' '.join(PACKAGES)}", file=sys.stderr)
            return 5
        every = _measured(with_text, list(cases())[:: given.every], given.processes)
        rows = [row for row in every if row["legible"]]
        recall = _recall(rows)
        missed = sorted((row for row in rows if not row["found"]), key=lambda row: row["seed"])
        show(
            "pixels: text",
            tuple(recall[0]),
            recall,
            as_json=given.json,
            illegible=len(every) - len(rows),
            missed=missed if given.json else len(missed),
        )
    if "clean" in parts:
        asked = [(kind, 1000 + seed) for seed in range(0, given.clean, given.every) for kind in KINDS]
        rows = _measured(without_text, asked, given.processes)
        flags = _false_flags(rows)
        which = [row for row in rows if row["flagged"]]
        show("pixels: clean", tuple(flags[0]), flags, as_json=given.json, which=which if given.json else len(which))
    if "cost" in parts:
        rows = cost()
        show("pixels: cost", tuple(rows[0]), rows, as_json=given.json)
    if "samples" in parts:
        rows = samples(given.samples)
        told = Counter((row["kind"], state) for row in rows for state in row["states"])
        columns = [{"kind": kind, "state": state, "series": count} for (kind, state), count in sorted(told.items())]
        show("pixels: samples", tuple(columns[0]), columns, as_json=given.json, files=rows if given.json else len(rows))
    below = _misses(recall, flags)
    for line in below:
        print(f"error: {line}", file=sys.stderr)
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
