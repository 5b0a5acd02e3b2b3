"""Files in transfer syntaxes that pydicom does not write: deflated frames and JPEG XL."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from tests.sim.dicom import ct_slice, raw_file, to_bytes

DEFLATED_FRAMES, JPEG_XL = "1.2.840.10008.1.2.8.1", "1.2.840.10008.1.2.4.110"
# (7 y + 5 x) % 256, 16 x 16, eight bits, made with libjxl 0.11: as a file, with a box for words to go into
XL_FILE = bytes.fromhex(
    "0000000c4a584c200d0a870a00000014667479706a786c20000000006a786c200000002f6a786c63"
    "ff0a434050dc080804010068004b2824c64741c10485a8d34a42180e501483aaaaaaeaffffff07"
)


def unknown_to_pydicom(data: Dataset, syntax: str) -> bytes:
    """A file in a syntax that pydicom does not write."""
    content = to_bytes(data, RLELossless)
    start = 144 + struct.unpack_from("<L", content, 140)[0]
    return raw_file(content[start:], syntax)


def deflated(frames: np.ndarray, bits: int, extra: bytes = b"") -> bytes:
    """Frames deflated one by one, with something behind each stream."""
    data = ct_slice()
    data.NumberOfFrames, data.Rows, data.Columns = frames.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = bits, bits, bits - 1, 0
    streams = []
    for frame in frames:
        plain = np.packbits(frame.astype(np.uint8), bitorder="little").tobytes() if bits == 1 else frame.tobytes()
        machine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        streams.append(machine.compress(plain) + machine.flush() + extra)
    data.PixelData = encapsulate(streams)
    data["PixelData"].VR = "OB"
    return unknown_to_pydicom(data, DEFLATED_FRAMES)


def xl(frame: bytes) -> bytes:
    data = ct_slice()
    data.Rows = data.Columns = 16
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.PixelData = encapsulate([frame])
    data["PixelData"].VR = "OB"
    return unknown_to_pydicom(data, JPEG_XL)
