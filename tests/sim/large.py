"""Large everyday objects as bytes, in implicit VR little endian: made by hand, for pydicom takes minutes over them."""

from __future__ import annotations

import struct
from collections.abc import Callable

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian

from tests.sim.dicom import ct_slice, to_bytes

CT, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4.1"
SEG, RTSTRUCT = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.481.3"


def item(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def element(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value


def text(tag: int, value: str, pad: bytes = b" ") -> bytes:
    return element(tag, value.encode() + pad * (len(value) % 2))


def uid(tag: int, value: str) -> bytes:
    return text(tag, value, b"\0")


def sequence(tag: int, *items: bytes) -> bytes:
    return element(tag, b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(one)) + one for one in items))


def code(tag: int, value: str, scheme: str, meaning: str) -> bytes:
    return sequence(tag, text(0x00080100, value) + text(0x00080102, scheme) + text(0x00080104, meaning))


def _around(data: Dataset, last: bytes, pixels: bytes | None) -> bytes:
    del data.PixelData
    if pixels is None:
        for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
            del data[keyword]
        del data["SamplesPerPixel"], data["PhotometricInterpretation"]
    return to_bytes(data, ImplicitVRLittleEndian) + last + (element(0x7FE00010, pixels) if pixels is not None else b"")


def segmentation(frames: int) -> bytes:
    """Organs on slices, a frame for each: twenty-five elements and items a frame."""
    data = ct_slice()
    data.SOPClassUID, data.Modality, data.SegmentationType = SEG, "SEG", "BINARY"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 1, 1, 0, 0
    data.NumberOfFrames = frames
    kind = {"SegmentedPropertyCategoryCodeSequence": _coded("91723000", "Anatomical structure")}
    kind["SegmentedPropertyTypeCodeSequence"] = _coded("10200004", "Liver")
    organs = [item(SegmentNumber=organ + 1, SegmentLabel="Liver", **kind) for organ in range(98)]
    data.SegmentSequence = Sequence(organs)

    def frame(number: int) -> bytes:
        purpose = code(0x0040A170, "121322", "DCM", "Source image for image processing operation")
        source = sequence(0x00082112, uid(0x00081150, CT) + uid(0x00081155, f"1.2.3.{number % 643}") + purpose)
        derived = sequence(0x00089124, source + code(0x00089215, "113076", "DCM", "Segmentation"))
        place = struct.pack("<LL", number % 98 + 1, number // 98 + 1)
        return (
            derived
            + sequence(0x00209111, element(0x00209157, place))
            + sequence(0x00209113, text(0x00200032, f"0\\0\\{number // 98}"))
            + sequence(0x0062000A, element(0x0062000B, struct.pack("<H", number % 98 + 1)))
        )

    return _around(data, sequence(0x52009230, *map(frame, range(frames))), bytes(frames * 8))


def _coded(value: str, meaning: str) -> Sequence:
    return Sequence([item(CodeValue=value, CodingSchemeDesignator="SCT", CodeMeaning=meaning)])


def enhanced_mr(frames: int) -> bytes:
    """Time points of a perfusion: some fifty elements and items a frame."""
    data = ct_slice()
    data.SOPClassUID, data.Modality, data.NumberOfFrames = ENHANCED_MR, "MR", frames

    def frame(number: int) -> bytes:
        moment = f"20240301{10 + number // 3600 % 10:02}{number // 60 % 60:02}{number % 60:02}.250000"
        content = text(0x00189074, moment) + text(0x00189151, moment) + text(0x00209056, "1")
        content += element(0x00209057, struct.pack("<L", number % 60 + 1)) + text(0x00209158, "FRAME OF HARTOG")
        echo = struct.pack("<d", 2.5 + number)
        numbers = b"".join(element(tag, echo) for tag in (0x00189075, 0x00189082, 0x00189087, 0x00189098))
        return (
            sequence(0x00189114, element(0x00189082, echo))
            + sequence(0x00189112, text(0x00180080, "5.1") + text(0x00181314, "12") + numbers[:0])
            + sequence(0x00209111, content)
            + sequence(0x00209113, text(0x00200032, f"-120.5\\-118.25\\{number % 60 * 3}"))
            + sequence(0x00209116, text(0x00200037, "1\\0\\0\\0\\1\\0"))
            + sequence(0x00289110, text(0x00180050, "3") + text(0x00280030, "0.9375\\0.9375"))
            + sequence(0x00289145, text(0x00281052, "0") + text(0x00281053, "1.5") + text(0x00281054, "US"))
        )

    return _around(data, sequence(0x52009230, *map(frame, range(frames))), bytes(frames * 128))


def structure_set(organs: int, contours: int, points: int) -> bytes:
    """Contours of organs, each of so many points."""
    data = ct_slice()
    data.SOPClassUID, data.Modality, data.StructureSetLabel = RTSTRUCT, "RTSTRUCT", "RT"
    data.StructureSetDate, data.StructureSetTime = "20240301", "101010"
    names = [item(ROINumber=organ + 1, ROIName="Liver", ROIGenerationAlgorithm="AUTOMATIC") for organ in range(organs)]
    data.StructureSetROISequence = Sequence(names)

    def contour(number: int) -> bytes:
        where = "\\".join(f"{-123.456 + number % 97 + place * 0.37:.5f}" for place in range(points * 3))
        image = sequence(0x30060016, uid(0x00081150, CT) + uid(0x00081155, f"1.2.3.{number}"))
        kind = text(0x30060042, "CLOSED_PLANAR") + text(0x30060046, str(points))
        return image + kind + text(0x30060050, where)

    rows = [
        sequence(0x30060040, *map(contour, range(organ * contours // organs, (organ + 1) * contours // organs)))
        + text(0x30060084, str(organ + 1))
        for organ in range(organs)
    ]
    return _around(data, sequence(0x30060039, *rows), None)


# What public data sets have: organs of a whole-body CT, a perfusion, the contours of 104 organs, those of few in 39 MB.
LARGE: dict[str, Callable[[], bytes]] = {
    "a segmentation of 12,000 frames": lambda: segmentation(12_000),
    "an enhanced MR of 6,000 frames": lambda: enhanced_mr(6_000),
    "30,000 contours": lambda: structure_set(104, 30_000, 20),
    "39 MB of contours": lambda: structure_set(60, 8_000, 180),
}
LARGEST: dict[str, Callable[[], bytes]] = {
    "98 organs on 643 slices, a frame for each": lambda: segmentation(98 * 643),
    "a whole body of 55 MB": lambda: structure_set(104, 12_000, 165),
}
