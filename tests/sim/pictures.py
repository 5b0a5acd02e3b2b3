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
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "MG": "1.2.840.10008.5.1.4.1.1.1.2",
    "OT": "1.2.840.10008.5.1.4.1.1.7",
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


def ct(seed: int, size: int = 512, level: int = 0) -> npt.NDArray[np.int16]:
    """An axial slice, HU: air, an ellipse of soft tissue, a ring of bone, noise with grain. `level`: its neighbours."""
    random = np.random.default_rng([1, seed])
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    squeeze = random.uniform(0.9, 1.3)
    radius = np.hypot(x / 0.8, y * squeeze / 0.8)
    image = np.where(radius < 1, 40.0, -1000.0)
    image[(radius > 0.86) & (radius < 0.93)] = 700
    spot_x, spot_y = random.uniform(-0.3, 0.3, 2)
    image[np.hypot(x - spot_x - 0.02 * level, y - spot_y) < 0.12] = 900
    image[np.hypot(x + 0.35, y) < 0.2 - 0.005 * level] = -850
    random = np.random.default_rng([1, seed, level]) if level else random
    image = _smooth(image, 0.8)  # as any scanner spreads an edge over its pixels
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


def mr(seed: int, size: int = 256, level: int = 0) -> npt.NDArray[np.uint16]:
    """A head in MR: skin, skull and two tissues in folds, a bias field, Rician noise."""
    random = np.random.default_rng([4, seed])
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    radius = np.hypot(x / 0.7, y / random.uniform(0.75, 0.9)) * (1 + 0.01 * level)
    folds = _noise(random, (size, size), size / 50) + 0.1 * level * _noise(random, (size, size), size / 40)
    image = np.where(radius < 0.8, np.where(folds > 0, 900.0, 620.0), 0.0)
    image[(radius > 0.9) & (radius < 1)] = 1300
    image[np.hypot(np.abs(x) - 0.1, y * 0.5) < 0.06] = 200
    image = _smooth(image * (1 + 0.2 * _noise(random, (size, size), size / 4)), 0.7)
    random = np.random.default_rng([4, seed, level])
    image = np.hypot(image + 25 * random.normal(size=image.shape), 25 * random.normal(size=image.shape))
    return np.clip(image, 0, 4095).astype(np.uint16)


def pt(seed: int, size: int = 200, level: int = 0) -> npt.NDArray[np.uint16]:
    """A slice of PET: a dim body, some hot organs and spots, blurred as a ring of detectors sees them."""
    random = np.random.default_rng([5, seed])
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    image = np.where(np.hypot(x / 0.6, y / 0.45) < 1, 1500.0, 0.0)
    for _spot in range(6):
        at_x, at_y, wide = random.uniform(-0.4, 0.4), random.uniform(-0.3, 0.3), random.uniform(0.02, 0.15)
        image[np.hypot(x - at_x, y - at_y) < max(wide - 0.004 * level, 0.01)] += random.uniform(1000, 20000)
    random = np.random.default_rng([5, seed, level])
    image = _smooth(random.poisson(image / 10) * 10.0, 1.6)
    return np.clip(image, 0, 32767).astype(np.uint16)


def mg(seed: int, rows: int = 1600, columns: int = 1200) -> npt.NDArray[np.uint16]:
    """A mammogram: half an ellipse of fat with strands and grains of calcium, air beside it."""
    random = np.random.default_rng([6, seed])
    y, x = np.mgrid[-1 : 1 : rows * 1j, 0 : 1 : columns * 1j]
    inside = np.hypot(x / random.uniform(0.6, 0.85), y / 0.85) < 1
    strands = np.abs(_noise(random, (rows, columns), 12)) + np.abs(_noise(random, (rows, columns), 50))
    image = np.where(inside, 1400 + 350 * strands, 80.0)
    for _grain in range(25):
        row, column = random.integers(rows // 3, rows * 2 // 3), random.integers(0, columns // 2)
        image[row : row + random.integers(2, 6), column : column + random.integers(2, 6)] = 3600
    image = _smooth(image, 0.8) + 30 * _noise(random, (rows, columns), 0.8)
    return np.clip(image, 0, 4095).astype(np.uint16)


def sc(seed: int, rows: int = 600, columns: int = 800) -> npt.NDArray[np.uint8]:
    """A screen in colours: a slice in a pane, a curve in another, frames and bars around."""
    random = np.random.default_rng([7, seed])
    screen = np.full((rows, columns, 3), (28, 32, 40), dtype=np.uint8)
    grey = np.clip((ct(seed, 384).astype(float) + 200) / 2.5, 0, 255).astype(np.uint8)
    screen[40:424, 30:414] = grey[:, :, None]
    screen[40:300, 440:780] = (8, 8, 8)
    across = np.arange(440, 780)
    height = 170 + 80 * np.sin(across / random.uniform(20, 60)) * np.exp(-(across - 440) / 300)
    for thick in range(2):
        screen[height.astype(int) + thick, across] = (90, 220, 90)
    screen[:24] = (60, 70, 110)
    screen[340:420:16, 460:760] = (120, 120, 120)
    return screen


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
