"""Pictures as scanners make them, text drawn into them, and DICOM files around them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

from tests.sim.dicom import ct_slice, to_bytes

Frames = npt.NDArray[np.generic]
NAME = "JANSEN WILHELMINA 1931-05-03"
CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "US-cine": "1.2.840.10008.5.1.4.1.1.3.1",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
}


def _smooth(values: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
    """Gaussian blur by the Fourier transform."""
    frequency_y = np.fft.fftfreq(values.shape[0])[:, None]
    frequency_x = np.fft.rfftfreq(values.shape[1])[None, :]
    kernel = np.exp(-2 * (np.pi * sigma) ** 2 * (frequency_y**2 + frequency_x**2))
    return np.fft.irfft2(np.fft.rfft2(values) * kernel, s=values.shape)


def _noise(random: np.random.Generator, shape: tuple[int, int], sigma: float) -> npt.NDArray[np.float64]:
    field = _smooth(random.normal(size=shape), sigma)
    return field / field.std()


def ct(seed: int, size: int = 512) -> npt.NDArray[np.int16]:
    """An axial slice, HU: air, an ellipse of soft tissue, a ring of bone, noise with grain."""
    random = np.random.default_rng([1, seed])
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    squeeze = random.uniform(0.9, 1.3)
    radius = np.hypot(x / 0.8, y * squeeze / 0.8)
    image = np.where(radius < 1, 40.0, -1000.0)
    image[(radius > 0.86) & (radius < 0.93)] = 700
    spot_x, spot_y = random.uniform(-0.3, 0.3, 2)
    image[np.hypot(x - spot_x, y - spot_y) < 0.12] = 900
    image[np.hypot(x + 0.35, y) < 0.2] = -850
    image += 18 * _noise(random, image.shape, 1.0) + 25 * _noise(random, image.shape, 12.0) * (radius < 1)
    return np.clip(image, -1024, 3071).astype(np.int16)


def us(seed: int, rows: int = 480, columns: int = 640) -> npt.NDArray[np.uint8]:
    """A sector of speckle on black."""
    random = np.random.default_rng([2, seed])
    y, x = np.mgrid[0:rows, 0:columns]
    radius, angle = np.hypot(x - columns / 2, y + 40.0), np.arctan2(x - columns / 2, y + 40.0)
    inside = (np.abs(angle) < 0.65) & (radius > 90) & (radius < rows)
    speckle = np.hypot(_noise(random, (rows, columns), 1.6), _noise(random, (rows, columns), 1.6))
    tissue = 60 + 30 * _noise(random, (rows, columns), 25.0)
    return np.where(inside, np.clip(tissue * speckle, 0, 255), 0).astype(np.uint8)


def cr(seed: int, rows: int = 1400, columns: int = 1200) -> npt.NDArray[np.uint16]:
    """A projection radiograph of 12 bits: broad shadows, ribs, a collimated border."""
    random = np.random.default_rng([3, seed])
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    image = 1500 + 900 * np.exp(-((x / 0.5) ** 2)) + 300 * _noise(random, (rows, columns), 60.0)
    image += 180 * np.sin(14 * y + 6 * x**2) * (np.abs(x) > 0.2)
    image += 40 * _noise(random, (rows, columns), 1.5)
    image[(np.abs(x) > 0.96) | (np.abs(y) > 0.97)] = 150
    return np.clip(image, 0, 4095).astype(np.uint16)


def draw(
    frame: npt.NDArray[np.generic], text: str, at: tuple[int, int], height: int, value: float
) -> npt.NDArray[np.bool_]:
    """Draw text of a height in pixels at (x, y), in place; which pixels are letters."""
    rows, columns = frame.shape[:2]
    canvas = Image.new("L", (columns, rows))
    ImageDraw.Draw(canvas).text(at, text, fill=255, font=ImageFont.load_default(size=height))
    ink = np.asarray(canvas, dtype=np.float32) / 255
    if frame.ndim == 3:
        ink = ink[:, :, None]
    frame[...] = (frame * (1 - ink) + value * ink).astype(frame.dtype)
    return np.asarray(canvas) > 127


def dataset(kind: str, frames: Frames, *, bits: int | None = None, **elements: object) -> Dataset:
    """A dataset of a kind in `CLASSES` around native frames: `([frames,] rows, columns[, 3])`."""
    result = ct_slice()
    colour = frames.shape[-1] == 3
    shape = frames.shape[:-1] if colour else frames.shape
    result.SOPClassUID, result.Modality = CLASSES[kind], kind.partition("-")[0]
    result.Rows, result.Columns = shape[-2:]
    if len(shape) == 3:
        result.NumberOfFrames = shape[0]
    result.SamplesPerPixel = 3 if colour else 1
    result.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        result.PlanarConfiguration = 0
    result.BitsAllocated = 8 * frames.dtype.itemsize
    result.BitsStored = bits or result.BitsAllocated
    result.HighBit, result.PixelRepresentation = result.BitsStored - 1, int(frames.dtype.kind == "i")
    raw = frames.astype(frames.dtype.newbyteorder("<")).tobytes()
    result.add_new(0x7FE00010, "OB" if frames.dtype.itemsize == 1 else "OW", raw + b"\0" * (len(raw) % 2))
    for keyword, value in elements.items():
        setattr(result, keyword, value)
    return result


def as_file(path: Path, data: Dataset, syntax: str = ExplicitVRLittleEndian, plugin: str = "") -> Path:
    """Write a dataset of native frames in a transfer syntax, compressed by pydicom's encoders where it asks for it."""
    to_bytes(data)  # gives the dataset its file meta
    if syntax == JPEGBaseline8Bit:
        data.PixelData = encapsulate([_jpeg(frame) for frame in data.pixel_array.reshape(-1, *_shape(data))])
        data["PixelData"].VR = "OB"
        if data.SamplesPerPixel == 3:
            data.PhotometricInterpretation = "YBR_FULL_422"
    elif syntax.startswith("1.2.840.10008.1.2.4") or syntax == RLELossless:
        data.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
    elif syntax == ExplicitVRBigEndian and data.BitsAllocated == 16:
        data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
    path.write_bytes(to_bytes(data, syntax))
    return path


def _shape(data: Dataset) -> tuple[int, ...]:
    return (data.Rows, data.Columns, 3) if data.SamplesPerPixel == 3 else (data.Rows, data.Columns)


def _jpeg(frame: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()
