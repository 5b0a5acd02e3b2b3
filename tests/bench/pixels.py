"""How well burned-in text is found, and what it costs: `python -m tests.bench.pixels [--seeds N] [--samples FOLDER]`.

Text is drawn on generated CT, US and CR pictures, in several heights (px) and contrasts; each picture passes the pixel
gate's own reading. One line of JSON for each kind, height and contrast, then the totals.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom

from mediator.deid.screening import Facts
from node.deid.pixels import Instance, PixelGate
from node.deid.pixels.frames import NotDecoded, decode, open_film, picture, window
from node.deid.pixels.ocr import RapidReader
from node.deid.pixels.rewrite import widened
from tests.sim.pictures import NAME, as_file, cr, ct, dataset, draw, us

KINDS = {"CT": ct, "US": us, "CR": cr}
HEIGHTS = (10, 12, 16, 24, 40)
# stored values: on dark, on bright, and close to what is around them
CONTRASTS = {
    "CT": {"white": 3000, "bright": 400, "faint": 180, "black": -1024},
    "US": {"white": 255, "bright": 200, "faint": 140, "black": 0},
    "CR": {"white": 4095, "bright": 3300, "faint": 2800, "black": 0},
}


def recall(folder: Path, seeds: int) -> None:
    """Per kind, height and contrast: pictures where text was found, and letters covered by the boxes."""
    reader, totals = RapidReader(), Counter[str]()
    for kind, make in KINDS.items():
        for height in HEIGHTS:
            for contrast, value in CONTRASTS[kind].items():
                hit, covered = 0, []
                for seed in range(seeds):
                    frame = make(seed)
                    at = (frame.shape[1] // 4, frame.shape[0] * (2 + seed % 3) // 6)
                    ink = draw(frame, NAME[:17], at, height, value)
                    film = open_film(as_file(folder / "one.dcm", dataset(kind, frame)))
                    values = next(decode(film, [0]))
                    boxes = [box for box in reader.read(picture(values, *window([values]))) if box.readable]
                    under = np.zeros(ink.shape, dtype=bool)
                    for box in boxes:
                        wide = widened(box, film)
                        under[wide.top : wide.bottom, wide.left : wide.right] = True
                    share = float((ink & under).sum() / ink.sum())
                    hit += share > 0.5
                    covered.append(share)
                told = {"kind": kind, "height": height, "contrast": contrast, "found": hit, "of": seeds}
                print(json.dumps(told | {"letters_covered": round(float(np.mean(covered)), 3)}), flush=True)
                totals[f"{kind} found"] += hit
                totals[f"{kind} of"] += seeds
    print(json.dumps(totals))


def clean(folder: Path, seeds: int) -> None:
    """Generated pictures without text: how many are flagged, and the time and memory of the reader process."""
    with PixelGate() as gate:
        for kind, make in KINDS.items():
            states = Counter[str]()
            start, began = _cpu_s(gate), time.monotonic()
            for seed in range(100, 100 + 4 * seeds):
                path = as_file(folder / "one.dcm", dataset(kind, make(seed)))
                verdict = gate.examine([Instance(path, Facts(modality=kind, has_pixels=True))])[0]
                states[verdict.finding or verdict.state] += 1
            took = (_cpu_s(gate) - start) / (4 * seeds)
            wall = (time.monotonic() - began) / (4 * seeds)
            print(
                json.dumps(
                    {"without text": kind, **states, "cpu_ms": round(1000 * took), "wall_ms": round(1000 * wall)}
                )
            )
        for rows, columns in ((512, 512), (1400, 1200), (2000, 2000), (3500, 2800)):
            path = as_file(folder / "one.dcm", dataset("CR", cr(1, rows, columns)))
            before = _cpu_s(gate)
            state = gate.examine([Instance(path, Facts(modality="CR", has_pixels=True))])[0].state
            told = {"size": [rows, columns], "state": state, "cpu_ms": round(1000 * (_cpu_s(gate) - before))}
            print(json.dumps(told | _memory_mb(gate)), flush=True)


def samples(root: Path) -> None:
    """Real files: how many pictures have text of two characters, boxes nobody can read, nothing, or do not decode."""
    reader, found = RapidReader(), Counter[str]()
    for path in sorted(root.rglob("*")):
        try:
            if not path.is_file() or "PixelData" not in pydicom.dcmread(path):
                continue
            film = open_film(path)
            values = next(decode(film, [film.frames // 2]))
        except (NotDecoded, pydicom.errors.InvalidDicomError, AttributeError, OSError, ValueError, NotImplementedError):
            found["not decoded"] += 1
            continue
        boxes = reader.read(picture(values, *window([values])))
        kind = "readable" if any(box.readable for box in boxes) else "doubtful" if boxes else "nothing"
        found[kind] += 1
        if boxes:
            print(json.dumps({"file": str(path.relative_to(root)), "boxes": kind}))
    print(json.dumps(found))


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


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--samples", type=Path)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clean(Path(folder), given.seeds)
        recall(Path(folder), given.seeds)
    if given.samples:
        samples(given.samples)


if __name__ == "__main__":
    sys.exit(main())
