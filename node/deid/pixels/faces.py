"""Recognisable faces: thin-slice head CT and MR can be rendered into a portrait (PS3.15 E.3.2).

No well-kept defacing tool installs and runs offline today (FSL, a brain mask or downloaded weights are asked for), so
nothing here changes a face and code 113102 is claimed by nobody: where the profile demands it, such scans go to
review. A tool that comes along later is called from `PixelGate` where it now asks `shows_face`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydicom

# Head MRI was matched with photographs by face recognition (Schwarz et al., NEJM 2019); thicker slices render steps.
THIN_MM = 5.0
_MODALITIES = frozenset({"CT", "MR"})
# Body parts of which a scan holds no face (PS3.16 Annex L, DICOM body part terms).
_ELSEWHERE = frozenset({
    "ABDOMEN", "ABDOMENPELVIS", "ANKLE", "ARM", "BLADDER", "BREAST", "CALCANEUS", "CHEST", "CHESTABDOMEN",
    "CHESTABDPELVIS", "ELBOW", "EXTREMITY", "FEMUR", "FINGER", "FOOT", "FOREARM", "HAND", "HEART", "HIP", "HUMERUS",
    "KIDNEY", "KNEE", "LEG", "LIVER", "LOWERLIMB", "LSPINE", "LUNG", "PANCREAS", "PELVIS", "PROSTATE", "RADIUS",
    "RIB", "SACRUM", "SHOULDER", "SPLEEN", "SSPINE", "TSPINE", "THIGH", "THUMB", "TIBIA", "TOE", "UPPERLIMB",
    "URETER", "UTERUS", "WRIST",
})  # fmt: skip


def shows_face(path: Path) -> bool:
    """Whether a CT or MR file may show a face: thin slices, and no body part named that excludes the head.

    What the header does not say counts against it.
    """
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        modality = str(header.get("Modality", "")).strip().upper()
        part = "".join(str(header.get("BodyPartExamined", "")).upper().split()).replace("_", "")
        thickness = _thickness(header.get("SliceThickness"))
        derived: Any = header.get("ImageType") or []
        image_type = [derived] if isinstance(derived, str) else list(derived)
    except Exception:  # noqa: BLE001 - the engine seam: a header that breaks pydicom excludes nothing
        return True
    if modality not in _MODALITIES or _is_localizer(image_type):
        return False
    return thickness <= THIN_MM and part not in _ELSEWHERE


def _thickness(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return 0.0


def _is_localizer(image_type: Sequence[str]) -> bool:
    return any(str(value).strip().upper() == "LOCALIZER" for value in image_type)
