"""One picture for the report: a slice with a name burned into it, before gate 0 and after, and its header beside it.

The real `cloister deid run`, on an ultrasound picture of nobody: no hospital of the demo has it.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pydicom
from PIL import Image
from pydicom.datadict import dictionary_description

from deploy.demo.failures import DemoFailed
from deploy.driver.commands import Commands
from tests.sim import pictures
from tests.sim.dicom import to_bytes

ELEMENTS = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "StudyDate", "AccessionNumber",
    "InstitutionName", "ReferringPhysicianName", "StudyInstanceUID", "Modality", "Rows", "Columns",
)  # fmt: skip


def take(commands: Commands, folder: Path) -> dict[str, Any]:
    """Make the picture, de-identify it, and return both as PNG in base64 and the header's rows (name, before, after).

    Raises `DemoFailed` when the command does not write it.
    """
    source = folder / "source"
    source.mkdir(parents=True)
    frame = pictures.us(7)
    pictures.draw(frame, pictures.NAME, (12, 12), 26, 255)
    before = pictures.dataset("US", frame)
    before.PatientName, before.PatientBirthDate = "Jansen^Wilhelmina", "19310503"
    before.InstitutionName, before.ReferringPhysicianName = "General Hospital", "Dr^Vermeer"
    before.StudyInstanceUID, before.SeriesInstanceUID, before.SOPInstanceUID = (
        f"1.2.826.0.1.3680043.10.1234.7.{number}" for number in (1, 2, 3)
    )
    (source / "us.dcm").write_bytes(to_bytes(before))
    commands("deid", "key", "new", folder / "key")
    commands(
        "deid", "run", source, folder / "out", "--profile", "eucaim", "--site", "aster", "--key", folder / "key",
        "--project", "picture", "--ocr", "auto",
    )  # fmt: skip
    written = next((folder / "out").rglob("*.dcm"), None)
    if written is None:
        raise DemoFailed("the picture with a burned-in name was not de-identified", commands.hint)
    after = pydicom.dcmread(written)
    return {
        "before": png(before.pixel_array),
        "after": png(after.pixel_array),
        "header": [[dictionary_description(name), _said(before, name), _said(after, name)] for name in ELEMENTS],
        "elements_before": len(before),
        "elements_after": len(after),
    }


def png(pixels: Any) -> str:
    """Greyscale pixels as PNG, base64."""
    out = io.BytesIO()
    Image.fromarray(pixels).convert("L").save(out, "PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode("ascii")


def _said(dataset: pydicom.Dataset, name: str) -> str:
    if name not in dataset:
        return ""
    return str(dataset[name].value)
