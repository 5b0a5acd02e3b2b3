"""Memory and time stay flat whatever a file says: each hostile file alone in a process with a limit."""

import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless

from node.deid.limits import MAX_PROCESS_BYTES
from tests.sim.dicom import ct_slice, element, raw_file, to_bytes

ITEM = b"\xfe\xff\x00\xe0"
OPEN = b"\xff\xff\xff\xff"
# 2 GiB less a page: native pixel data of defined length holds at most 2^32 - 2 bytes
FRAMES = 4095

ONE_FILE = """
import os, sys
from pathlib import Path
from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.screening import Exclusion
from mediator.deid.values import Subject
from node.deid.engine import open_engine
from node.deid.limits import limit_memory
limit_memory()
keyed = Pseudonyms(bytes(32), "liver")
engine = open_engine("eucaim")
source = engine.open(os.open(sys.argv[1], os.O_RDONLY))
if not isinstance(source, Exclusion):
    source = engine.write(source, Subject(keyed, keyed.patient("1"), 10), Path(sys.argv[2]))
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))  # since exec
print(source.value if source else "written", int(peak) * 1024)
"""


def one_file(path: Path, target: Path) -> tuple[str, int]:
    """What became of a file in a process of its own, and the peak of its memory in bytes."""
    command = [sys.executable, "-c", ONE_FILE, str(path), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    what, peak = done.stdout.split()
    return what, int(peak)


def bomb() -> bytes:
    machine = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    part = machine.compress(bytes(1 << 22)) + machine.flush(zlib.Z_FULL_FLUSH)
    return part * 250


def note(number: int) -> bytes:
    """An item with a comment of four words that no other has."""
    text = b"".join(b"%09d " % (4 * number + word) for word in range(4))
    return ITEM + struct.pack("<L", 8 + len(text)) + struct.pack("<HH2sH", 0x10, 0x4000, b"LT", len(text)) + text


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "deflate bomb": (lambda: raw_file(bomb(), DeflatedExplicitVRLittleEndian), "inflate_limit"),
    "recursion": (lambda: raw_file((element(0x00081140, b"SQ", b"", 0xFFFFFFFF) + ITEM + OPEN) * 3000), "too_deep"),
    "gigantic length": (lambda: raw_file(element(0x00091010, b"OB", bytes(1 << 20), 0xFFFFFFFE)), "truncated"),
    "many elements": (
        lambda: raw_file(b"".join(struct.pack("<HH", 9, n) + b"CS\0\0" for n in range(0x1000, 0xFFFF))),
        "written",
    ),
    "a sequence of millions of items": (
        lambda: raw_file(element(0x00081140, b"SQ", (ITEM + b"\0\0\0\0") * 2_000_000)),
        "too_many_elements",
    ),
    "a header without end": (lambda: raw_file(element(0x00091010, b"OB", bytes(60 << 20))), "too_large"),
    "a long header": (lambda: raw_file(element(0x00420011, b"OB", bytes(30 << 20))), "written"),
    "fragments of nothing": (
        lambda: raw_file(element(0x7FE00010, b"OB", (ITEM + b"\0\0\0\0") * 400_000, 0xFFFFFFFF), JPEG2000Lossless),
        "pixels_inconsistent",
    ),
    "a book in a name": (
        lambda: raw_file(element(0x00100010, b"UT", b" ".join(b"%07x" % n for n in range(3_000_000)))),
        "too_large",
    ),
    "a library of notes": (
        lambda: raw_file(element(0x00081140, b"SQ", b"".join(map(note, range(90_000))))),
        "too_large",
    ),
    "malformed and wide": (
        lambda: raw_file(element(0x00100010, b"ZZ", b"") + struct.pack("<HH2sH", 8, 0x18, b"UI", 0) * 400_000),
        "too_many_elements",
    ),
    "malformed and deep": (
        lambda: raw_file(
            element(0x00100010, b"PN", b"") * 2 + (element(0x00081140, b"SQ", b"", 0xFFFFFFFF) + ITEM + OPEN) * 3000
        ),
        "too_deep",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_a_finding_within_memory_and_time(tmp_path, name):
    make, expected = HOSTILE[name]
    path, target = tmp_path / "in", tmp_path / "out"
    path.write_bytes(make())
    started = time.monotonic()
    what, peak = one_file(path, target)
    assert what == expected and peak < MAX_PROCESS_BYTES
    assert time.monotonic() - started < 30 and target.exists() == (what == "written")


def test_a_multi_frame_file_of_two_gigabytes_streams(tmp_path):
    """Sparse, so that it costs no room; its last bytes are compared."""
    dataset = ct_slice()
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = FRAMES, 512, 512
    content = to_bytes(dataset)
    size = FRAMES * 512 * 512 * 2
    start = len(content) - 128
    path, target = tmp_path / "in.dcm", tmp_path / "out.dcm"
    with path.open("wb") as file:
        file.write(content[: start - 4] + struct.pack("<L", size))
        file.truncate(start + size)
        file.seek(start + size - 4)
        file.write(b"last")
    what, peak = one_file(path, target)
    assert what == "written" and peak < MAX_PROCESS_BYTES
    with target.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        assert file.read() == b"last"
    assert target.stat().st_size > size
    target.unlink()


def test_a_worker_that_wants_more_than_its_limit_is_told_so():
    code = "from node.deid.limits import limit_memory; limit_memory(1 << 26); x = bytearray(1 << 30)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "MemoryError" in done.stderr
