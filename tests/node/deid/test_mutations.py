"""A fuzzer that knows what DICOM is made of: seeded, bounded, and judged by what may never happen.

Whole elements are cut out, doubled, moved and grafted from one file into another; lengths, tags, VRs, delimiters lie;
then the engine reads and writes. Never a crash, never a hang, never half a file, never another's name in what stands.
"""

import random
import struct
import time

import pytest
from pydicom.uid import JPEG2000Lossless

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.screening import Exclusion
from mediator.deid.values import Subject
from node.deid.engine import open_engine
from node.deid.lenient import parse_leniently
from node.deid.stream import MemoryStream
from node.deid.structure import Unreadable
from tests.sim.dicom import element, raw_file
from tests.sim.dicom_variety import variety

KEYED = Pseudonyms(bytes(32), "liver")
LENGTHS = (0, 1, 2, 7, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
WORDS = (
    b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0", b"\xe0\x7f\x10\x00", b"SQ", b"UN", b"OB", b"UT",
    b"ZZ", b"\x10\x00\x10\x00PN", b"\x02\x00\x10\x00UI", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\\", b"\x1b$B",
)  # fmt: skip
ROUNDS = 250


def seeds() -> list[bytes]:
    fragments = b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<L", 4) + b"abcd" for _ in range(3))
    pixels = element(0x7FE00010, b"OB", fragments + b"\xfe\xff\xdd\xe0\0\0\0\0", 0xFFFFFFFF)
    compressed = raw_file(element(0x00100010, b"PN", b"Hartog^Wilhelmina ") + pixels, JPEG2000Lossless)
    return [*(content for _, content in variety(99, 12)), compressed]


def mutate(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """One to six changes."""
    raw = bytearray(content)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(128, max(129, len(raw)))
        end = min(len(raw), at + chance.choice((1, 2, 4, 8, 12, 40, 200)))
        match chance.randrange(7):
            case 0:
                del raw[at:end]
            case 1:
                raw[at:at] = raw[at:end]
            case 2:
                donor = chance.choice(others)
                start = chance.randrange(128, len(donor))
                raw[at:end] = donor[start : start + end - at]
            case 3:
                raw[at : at + 4] = struct.pack("<L", chance.choice(LENGTHS))
            case 4:
                raw[at : at + 2] = struct.pack("<H", chance.choice(LENGTHS) & 0xFFFF)
            case 5:
                word = chance.choice(WORDS)
                raw[at : at + len(word)] = word
            case _:
                raw[at : at + 1] = bytes([chance.randrange(256)])
    return bytes(raw[: chance.randrange(132, len(raw) + 1)]) if chance.random() < 0.1 else bytes(raw)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_written_whole_or_not_at_all(tmp_path, seed):
    chance, whole = random.Random(seed), seeds()
    engine, subject, written = open_engine("eucaim"), Subject(KEYED, KEYED.patient("1"), 10), 0
    for number in range(ROUNDS):
        content = mutate(chance.choice(whole), whole, chance)
        path, started = tmp_path / f"{number}", time.monotonic()
        source = engine.read(content)
        refused = source if isinstance(source, Exclusion) else engine.write(source, subject, path)
        assert refused is None or refused in Exclusion
        assert path.exists() == (refused is None) and time.monotonic() - started < 5
        if refused is None:
            raw = path.read_bytes()
            again = engine.read(raw)
            assert not isinstance(again, Exclusion) and again.finding is None, number
            pixels = again.parsed.pixels
            around = raw if pixels is None else raw[: pixels.start]
            assert b"Hartog" not in around and b"HX-77001234" not in around
            written += 1
    assert written > ROUNDS // 20


@pytest.mark.parametrize("seed", range(4, 6))
def test_the_patient_reader_refuses_or_reads_and_never_breaks(seed):
    chance, whole = random.Random(seed), seeds()
    for _ in range(ROUNDS):
        started = time.monotonic()
        try:
            parse_leniently(MemoryStream(mutate(chance.choice(whole), whole, chance)), lambda tag: "UN")
        except Unreadable as problem:
            assert problem.finding in Exclusion
        assert time.monotonic() - started < 5
