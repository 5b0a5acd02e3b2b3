"""Segmentations of one bit a cell in RLE, as workstations write them, are read as any picture; broken ones are not."""

import itertools
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from node.deid.pixels.frames import NotDecoded, decode, open_film
from node.deid.pixels.rle import one_bit
from tests.sim.dicom import ct_slice, to_bytes


def runs(packed: bytes, lengths: list[int]) -> bytes:
    """PackBits: equal bytes as one run where the turn says so, else literally; a run that is no operation between."""
    written, at = bytearray(), 0
    for length in itertools.cycle(lengths):
        if at >= len(packed):
            return bytes(written + b"\0" * (len(written) % 2))
        rest = packed[at : at + 128]
        same = len(rest) - len(rest.lstrip(rest[:1]))
        if length % 3 == 0:
            written.append(128)
        if same > 1 and length % 2:
            written += bytes([257 - same, packed[at]])
            at += same
        else:
            part = packed[at : at + length]
            written += bytes([len(part) - 1]) + part
            at += len(part)


def segmentation(masks: np.ndarray, lengths: list[int], spoil=lambda frame: frame) -> bytes:
    dataset = ct_slice()
    dataset.SOPClassUID, dataset.Modality = "1.2.840.10008.5.1.4.1.1.66.4", "SEG"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = masks.shape
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = dataset.PixelRepresentation = 0
    packed = [np.packbits(mask.ravel(), bitorder="little").tobytes() for mask in masks]
    head = struct.pack("<16L", 1, 64, *[0] * 14)
    dataset.PixelData = encapsulate([spoil(head + runs(frame, lengths)) for frame in packed])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    return to_bytes(dataset, RLELossless)


def frames_of(path, raw):
    path.write_bytes(raw)
    film = open_film(path)
    return list(decode(film, range(film.frames)))


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    st.lists(st.integers(1, 128), min_size=1, max_size=5),
)
def test_every_cell_is_what_was_drawn(tmp_path_factory, shape, seed, share, lengths):
    masks = (np.random.default_rng(seed).random(shape) < share).astype(np.uint8)
    read = frames_of(tmp_path_factory.mktemp("seg") / "seg.dcm", segmentation(masks, lengths))
    assert np.array_equal(np.stack(read), masks)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda frame: frame[: len(frame) // 2],
        lambda frame: frame[:40],
        lambda frame: struct.pack("<2L", 2, 64) + frame[8:],
        lambda frame: struct.pack("<2L", 1, 8) + frame[8:],
        lambda frame: struct.pack("<2L", 1, 1 << 31) + frame[8:],
        lambda frame: frame[:64] + bytes([128]) * 4000,
    ],
)
def test_a_broken_stream_is_not_decoded(tmp_path, spoil):
    masks = (np.random.default_rng(1).random((1, 64, 64)) < 0.5).astype(np.uint8)
    with pytest.raises(NotDecoded):
        frames_of(tmp_path / "seg.dcm", segmentation(masks, [7, 30], spoil))


def test_a_run_that_has_too_much_gives_what_is_asked():
    assert one_bit(struct.pack("<16L", 1, 64, *[0] * 14) + bytes([256 - 9, 0xA5]), 3) == b"\xa5" * 3
