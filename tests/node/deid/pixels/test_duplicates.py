"""The same picture is known again whatever it is wrapped in, and nobody without the key can tell."""

import numpy as np
import pytest

from node.deid.pixels.duplicates import DIGEST_BYTES, SeenPixels, fingerprint
from node.deid.pixels.frames import NotDecoded
from node.deid.pixels.reader import ReaderProcess
from tests.sim.pictures import as_file, ct, dataset, us

KEY = b"k" * 32
SYNTAXES = {
    "1.2.840.10008.1.2": "",
    "1.2.840.10008.1.2.1": "",
    "1.2.840.10008.1.2.2": "",
    "1.2.840.10008.1.2.5": "pydicom",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg",
}


def written(tmp_path, frames, number=0, kind="CT", **elements):
    return [
        as_file(tmp_path / f"{number}-{index}.dcm", dataset(kind, frames, **elements), syntax, plugin)
        for index, (syntax, plugin) in enumerate(SYNTAXES.items())
    ]


def test_one_picture_has_one_fingerprint_in_every_syntax_and_under_every_identity(tmp_path):
    first = written(tmp_path, ct(1, 64))
    other_person = written(tmp_path, ct(1, 64), 1, PatientID="SOMEBODY-ELSE", SOPInstanceUID="1.2.3.4.5")
    assert len({fingerprint(path, KEY) for path in first + other_person}) == 1


def test_colours_too(tmp_path):
    colours = np.dstack([us(1, 48, 64), us(2, 48, 64), us(3, 48, 64)])
    paths = [path for path in written(tmp_path, colours, kind="US") if "-2" not in path.name]
    assert len({fingerprint(path, KEY) for path in paths}) == 1


def test_eight_bits_in_sixteen_are_the_same_picture(tmp_path):
    narrow = as_file(tmp_path / "narrow", dataset("US", us(1, 48, 64)))
    wide = as_file(tmp_path / "wide", dataset("US", us(1, 48, 64).astype(np.uint16), bits=8))
    assert fingerprint(narrow, KEY) == fingerprint(wide, KEY)


def test_one_changed_pixel_or_another_key_is_another_fingerprint(tmp_path):
    frame = ct(1, 64)
    path = as_file(tmp_path / "a", dataset("CT", frame))
    frame[3, 3] += 1
    other = as_file(tmp_path / "b", dataset("CT", frame))
    assert len({fingerprint(path, KEY), fingerprint(other, KEY), fingerprint(path, b"o" * 32)}) == 3


def test_duplicates_are_found_across_projects_and_the_store_holds_hashes_alone(tmp_path):
    store = tmp_path / "seen"
    native, *others = written(tmp_path, ct(1, 64))
    liver = SeenPixels(store)
    assert liver.add(fingerprint(native, KEY)) is False and liver.add(fingerprint(others[2], KEY)) is True
    lung, new = SeenPixels(store), as_file(tmp_path / "new", dataset("CT", ct(2, 64)))
    assert lung.add(fingerprint(others[3], KEY)) is True and lung.add(fingerprint(new, KEY)) is False
    assert store.stat().st_size == 2 * DIGEST_BYTES and store.stat().st_mode & 0o777 == 0o600
    assert SeenPixels(store).add(fingerprint(native, b"o" * 32)) is False


def test_a_store_that_was_broken_off_is_read_to_its_last_whole_entry(tmp_path):
    store = tmp_path / "seen"
    SeenPixels(store).add(bytes(DIGEST_BYTES))
    store.write_bytes(store.read_bytes() + b"half")
    assert SeenPixels(store).add(bytes(DIGEST_BYTES)) is True


def test_what_cannot_be_decoded_has_no_fingerprint(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"nothing")
    with pytest.raises(NotDecoded):
        fingerprint(path, KEY)
    with pytest.raises(ValueError, match="32 bytes"):
        fingerprint(path, b"short")


def test_the_reader_process_takes_fingerprints_and_tells_what_it_cannot_decode(tmp_path):
    path = as_file(tmp_path / "a", dataset("CT", ct(1, 64)))
    nothing = tmp_path / "b"
    nothing.write_bytes(b"nothing")
    reader = ReaderProcess()
    try:
        assert reader.fingerprints([path, nothing], KEY) == [fingerprint(path, KEY), None]
    finally:
        reader.close()
