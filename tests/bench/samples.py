"""Every DICOM file of a folder through `cloister deid run` with every profile: what is published, what waits for a
person, what is refused and why, and whether stored values are what they were.

usage: python -m tests.bench.samples FOLDER [--profile NAME ...] [--ocr auto|off] [--dciodvfy] [--json]

Copies of one instance (the same SOP Instance UID in several transfer syntaxes) go into runs of their own, as one run
takes an instance once. A *clinical* object is what pydicom, which has no part in gate 0, says is one: readable, with a
class that a scanner, workstation or planning system makes, with a study and instance UID, with the pixels its class
must have; not a Secondary Capture, not of a class that is planned and not yet taken (whole slides, ophthalmic pictures,
signals, annotations of slides). `true` beside a reason: pydicom finds it so, too; `person`: only a person can say.
Exit code 3 where a stored value changed, or a clinical object was refused for a reason that is not true.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels import pixel_array

from node.deid.profiles import load_profile, profile_names
from tests.bench.validity import new_errors

Kind = Literal["clinical", "capture", "planned", "broken"]
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_CAPTURE = _STORAGE + "7"
# whole slides, their annotations, ophthalmology, signals, raw data, documents, directories
_PLANNED = (
    "1.2.840.10008.1.3.10",
    *(_STORAGE + tail for tail in ("77.1.6", "77.1.9", "77.1.5", "91.1", "9.", "66", "104.", "81.1", "82.1")),
)
_NOT_PLANNED = _STORAGE + "66."  # segmentations, registrations, surfaces
_PICTURES = ("1", "2", "3", "4", "6", "12", "13", "20", "128", "130", "481.1", "481.2")


@dataclass(frozen=True)
class Sample:
    """A file of the folder: what pydicom says it is, and how many files before it are copies of the same instance."""

    name: str
    kind: Kind
    copy: int = 0


@dataclass(frozen=True)
class Fate:
    """What became of a file. `reason_holds`: "true", "false" or "person"; "" where nothing held it. `values`: "same",
    "blacked out", "changed", "not compared" or ""."""

    name: str
    profile: str
    kind: Kind
    outcome: str
    reasons: tuple[str, ...] = ()
    reason_holds: str = ""
    values: str = ""
    new_errors: tuple[str, ...] = ()


def samples(folder: Path) -> list[Sample]:
    seen: Counter[str] = Counter()
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
        dataset = header(path)
        instance = str(dataset.get("SOPInstanceUID") or path) if dataset else str(path)
        found.append(Sample(str(path.relative_to(folder)), kind_of(dataset), seen[instance]))
        seen[instance] += 1
    return found


def header(path: Path) -> Dataset | None:
    try:
        return pydicom.dcmread(path)
    except (InvalidDicomError, OSError, ValueError, EOFError, NotImplementedError, AttributeError):
        return None


def kind_of(dataset: Dataset | None) -> Kind:
    if dataset is None or not all(dataset.get(name) for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID")):
        return "broken"
    sop_class = str(dataset.SOPClassUID)
    if sop_class == _CAPTURE or sop_class.startswith(_CAPTURE + "."):
        return "capture"
    if sop_class.startswith(_PLANNED) and not sop_class.startswith(_NOT_PLANNED):
        return "planned"
    return "broken" if _is_picture(sop_class) and not _has_pixels(dataset) else "clinical"


def _is_picture(sop_class: str) -> bool:
    tail = sop_class.removeprefix(_STORAGE)
    return any(tail == one or tail.startswith(one + ".") for one in _PICTURES)


def _has_pixels(dataset: Dataset) -> bool:
    return any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))


def through(folder: Path, several: Sequence[Sample], profile: str, ocr: str, work: Path) -> Iterator[tuple[Fate, str]]:
    """Each file's fate, and where what was written stands ("": nowhere). One `deid run` for each round of copies."""
    key = work / "key"
    if not key.exists():
        run("key", "new", str(key))
    for turn in range(1 + max(sample.copy for sample in several)):
        here = [sample for sample in several if sample.copy == turn]
        source, target, index = (work / f"{profile}-{turn}{tail}" for tail in ("", ".out", ".index"))
        for sample in here:
            (source / sample.name).parent.mkdir(parents=True, exist_ok=True)
            (source / sample.name).write_bytes((folder / sample.name).read_bytes())
        project = ["--project", "samples"] if load_profile(profile).scope == "project" else []
        asked = ["--profile", profile, "--site", "alpha", "--key", str(key), *project, "--ocr", ocr]
        run("run", str(source), str(target), *asked, "--source-index", str(index))
        names = {told["source"]: told["path"] for told in lines(index)}
        kinds = {sample.name: sample.kind for sample in here}
        for told in lines(Path(f"{target}.report.jsonl")):
            name, outcome = names[told["source"]], told["outcome"]
            room = {"written": target, "review": Path(f"{target}.review")}.get(outcome)
            values = "blacked out" if told.get("regions") else ""
            fate = Fate(name, profile, kinds[name], outcome, tuple(told.get("reasons", ())), values=values)
            yield fate, str(room / told["name"]) if room else ""


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def run(*words: str) -> None:
    """`cloister deid …`; whatever its exit code says of files, a line of each is in its report."""
    command = [sys.executable, "-c", "from node.cli import main; main()", "deid", *words]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 1, 3):
        raise RuntimeError(done.stderr)


def judged(fate: Fate, before: Path, after: str) -> Fate:
    """With what an independent reader says of its reason and of its values."""
    holds = ""
    if fate.reasons:
        holds = {True: "true", False: "false", None: "person"}[reason_holds(fate.reasons[0], header(before), before)]
    values = fate.values
    if after and not values:
        values = {True: "same", False: "changed", None: "not compared"}[same_values(before, Path(after))]
    return replace(fate, reason_holds=holds, values=values)


def reason_holds(reason: str, dataset: Dataset | None, path: Path) -> bool | None:
    """Whether pydicom finds the same; None where only a person can say."""
    if dataset is None:
        return reason in ("not_dicom", "no_preamble", "no_syntax", "media_directory") or None
    sop_class = str(dataset.get("SOPClassUID", ""))
    match reason:
        case "patient_id_missing":
            return not str(dataset.get("PatientID") or "").strip()
        case "uids_missing":
            return not all(dataset.get(name) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"))
        case "secondary_capture":
            words = "\\".join(dataset.get("ImageType") or []).upper()
            named = any(word in words for word in ("SCREEN", "CAPTURE", "SNAPSHOT"))
            return sop_class.startswith(_CAPTURE) or named or "ConversionType" in dataset
        case "pixels_missing":
            return not _has_pixels(dataset)
        case "truncated" | "pixels_inconsistent" | "malformed":
            return stored(path) is None
        case "whole_slide_image" | "ophthalmic_image" | "waveform" | "object_not_supported" | "encapsulated_document":
            return kind_of(dataset) != "clinical"
    return None


def stored(path: Path) -> np.ndarray | None:
    """The values a file stores, (frames,) rows, columns (, samples); None where nothing here decodes them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pixel_array(path, raw=True)
    except Exception:  # noqa: BLE001 - decoders of four libraries: whatever they raise, there is nothing to compare
        return None


def same_values(before: Path, after: Path) -> bool | None:
    """Whether the stored values are equal, in the bits that are stored; None where neither can be decoded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old, new = header(before), pydicom.dcmread(after)
    if old is None:
        return None
    for name in ("FloatPixelData", "DoubleFloatPixelData"):
        if name in old:
            return bool(old[name].value == new.get(name))
    if "PixelData" not in old:
        return "PixelData" not in new
    was, now = stored(before), stored(after)
    if was is None or now is None:
        return True if old.PixelData == new.PixelData else (None if was is None else False)
    mask = was.dtype.type((1 << int(old.BitsStored)) - 1) if old.BitsStored < 8 * was.dtype.itemsize else None
    return bool(np.array_equal(was, now) or (mask is not None and np.array_equal(was & mask, now & mask)))


def measured(folder: Path, profiles: Sequence[str], ocr: str, *, dciodvfy: bool = False) -> list[Fate]:
    found = []
    several = samples(folder)
    with tempfile.TemporaryDirectory(prefix="cloister-samples-") as work:
        for profile in profiles:
            for fate, after in through(folder, several, profile, ocr, Path(work)):
                one = judged(fate, folder / fate.name, after)
                if dciodvfy and after:
                    one = replace(one, new_errors=tuple(sorted(new_errors(folder / fate.name, Path(after)))))
                found.append(one)
                print(f"{profile}: {fate.outcome} {' '.join(fate.reasons)}", file=sys.stderr)
    return found


def summary(fates: Sequence[Fate]) -> list[dict[str, object]]:
    """A row for each profile: of its clinical objects, how many are written, wait, are refused, and for what."""
    rows: list[dict[str, object]] = []
    for profile in dict.fromkeys(fate.profile for fate in fates):
        of = [fate for fate in fates if fate.profile == profile]
        clinical = [fate for fate in of if fate.kind == "clinical"]
        outcomes = Counter(fate.outcome for fate in clinical)
        accounted = sum(fate.outcome == "written" or fate.reason_holds != "false" for fate in clinical)
        rows.append({
            "profile": profile, "files": len(of), "clinical": len(clinical),
            **{outcome: outcomes[outcome] for outcome in ("written", "review", "refused")},
            "written_or_true": round(accounted / max(1, len(clinical)), 4),
            "values": dict(sorted(Counter(fate.values for fate in of if fate.values).items())),
            "new_errors": sum(len(fate.new_errors) for fate in of),
            "reasons": dict(sorted(Counter(f"{f.outcome} {f.reasons[0]}" for f in clinical if f.reasons).items())),
            "reasons_of_others": dict(sorted(Counter(
                f"{f.kind} {f.outcome} {f.reasons[0]}" for f in of if f.kind != "clinical" and f.reasons
            ).items())),
        })  # fmt: skip
    return rows


def show(fates: Sequence[Fate]) -> None:
    for row in summary(fates):
        print(*(f"{key}: {value}" for key, value in row.items()), sep="\n  ")
    print("\nheld or refused, of the clinical ones:")
    for fate in fates:
        if fate.kind == "clinical" and fate.reasons:
            print(f"  {fate.profile:13}{fate.outcome:8} {' '.join(fate.reasons)} ({fate.reason_holds}): {fate.name}")
    for fate in fates:
        if fate.values == "changed" or fate.new_errors:
            print(f"  {fate.profile:13}values {fate.values}, {'; '.join(fate.new_errors)}: {fate.name}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--profile", nargs="*", default=list(profile_names()))
    parser.add_argument("--ocr", choices=["auto", "off"], default="auto")
    parser.add_argument("--dciodvfy", action="store_true", help="what Debian's dicom3tools say of the output alone")
    parser.add_argument("--json", action="store_true")
    wish = parser.parse_args()
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    fates = measured(wish.folder, wish.profile, wish.ocr, dciodvfy=wish.dciodvfy)
    if wish.json:
        print(json.dumps({"profiles": summary(fates), "files": [asdict(fate) for fate in fates]}, indent=1))
    else:
        show(fates)
    return 3 if any(fate.values == "changed" or fate.reason_holds == "false" for fate in fates) else 0


if __name__ == "__main__":
    sys.exit(main())
