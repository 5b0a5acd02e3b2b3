"""Every place of a pixel value that decoders ignore, by transfer syntax, with a word in it.

A *film* is a small made-up file in one syntax, taken apart: its frames, and what stands around them. A *place* is a
function that puts a word somewhere; `at` says which frame, segment or number, where there are several.
"""

from __future__ import annotations

import base64
import io
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames

from node.deid.structure import BIG_ENDIAN, DEFLATED, DEFLATED_FRAMES, ENCAPSULATED, EXPLICIT, IMPLICIT
from tests.sim.dicom import to_bytes
from tests.sim.pictures import as_file, dataset

_JPEG = "1.2.840.10008.1.2.4."
FRAMES = 3
# 16 x 16, eight bits, reversible, made with OpenJPH 0.26 of `(7 y + 5 x) % 256`
HTJ2K = base64.b64decode(
    "/0//UQApQAAAAAAQAAAAEAAAAAAAAAAAAAAAEAAAABAAAAAAAAAAAAABBwEB/1AACAACAAAAAv9SAAwAAgABAAUEBEAB/1wAEyBIUFBQUFBQUFBQUFBQ"
    "SEhI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAGMAAf+TwCWRAQd0AADAEsASgNoAh3QA/gCHdADAE0ASgIz9AAJ0AL4AA1QAwBPAE4BE"
    "RKCnwnUA3t3Byey1AMAq4BVgAAAA58Cnp6dCeABMkiT9knv2Sey4AP/Z"
)


@dataclass
class Film:
    """A file taken apart. `fragments` beside the frames, the bytes of the offset table, what follows the value."""

    data: Dataset
    syntax: str
    frames: list[bytes]
    before: list[bytes] = field(default_factory=list)
    behind: list[bytes] = field(default_factory=list)
    table: bytes | None = None  # None: the right one
    trailing: bytes = b""
    folder: Path = Path()

    def content(self) -> bytes:
        """The file."""
        data = self.data
        if self.syntax in ENCAPSULATED:
            items = [*self.before, *self.frames, *self.behind]
            items = [item + b"\0" * (len(item) % 2) for item in items]
            sizes = [8 + len(item) for item in items]
            places = [sum(sizes[:number]) for number in range(len(items))]
            offsets = places[len(self.before) : len(self.before) + len(self.frames)]
            table = struct.pack(f"<{len(offsets)}L", *offsets) if self.table is None else self.table
            data["PixelData"]._value = b"".join(
                struct.pack("<HHL", 0xFFFE, 0xE000, len(item)) + item for item in (table, *items)
            )
        else:
            data["PixelData"]._value = b"".join(self.frames) + b"".join(self.behind)
        return to_bytes(data, self.syntax) + self.trailing


Place = Callable[[Film, bytes, int], None]


def cells(syntax: str) -> np.ndarray:
    """What the frames of a film show."""
    eight = syntax.removeprefix(_JPEG) in ("50", "91", "201", "202", "203")
    side = 16 if syntax.removeprefix(_JPEG) in ("201", "202", "203") else 32
    y, x = np.mgrid[:side, :side]
    frames = np.stack([(7 * y + 5 * x + 9 * number) % (256 if eight else 4096) for number in range(FRAMES)])
    return frames.astype(np.uint8 if eight else np.uint16)


def encoded(syntax: str, folder: Path, frames: np.ndarray, bits: int) -> bytes:
    """A file in a syntax, by whichever encoder there is."""
    data = dataset("CT", frames, bits=bits, Modality="CT", BurnedInAnnotation="NO")
    path, short = folder / f"{syntax}.dcm", syntax.removeprefix(_JPEG)
    if short in ("201", "202", "203"):
        data.PixelData = encapsulate([HTJ2K] * FRAMES)
        data["PixelData"].VR = "OB"
        return to_bytes(data, syntax)
    if short in ("51", "57", "70"):
        as_file(path, data)
        option = {"51": "+ee", "57": "+el", "70": "+e1"}[short]
        done = path.with_suffix(".jpg")
        subprocess.run(["/usr/bin/dcmcjpeg", option, path, done], check=True, capture_output=True)
        return done.read_bytes()
    if short == "91":
        to_bytes(data)
        data.compress(syntax, encoding_plugin="pylibjpeg", generate_instance_uid=False, j2k_cr=[4])
        return to_bytes(data, syntax)
    plugin = {"80": "pyjpegls", "81": "pyjpegls", "90": "pylibjpeg"}
    as_file(path, data, syntax, plugin.get(short, "" if syntax not in ENCAPSULATED else "pydicom"))
    return path.read_bytes()


@lru_cache(maxsize=64)
def _made(syntax: str, folder: Path) -> bytes:
    frames = cells(syntax)
    return encoded(syntax, folder, frames, 8 if frames.dtype == np.uint8 else 12)


def film(syntax: str, folder: Path) -> Film:
    """A fresh film in a syntax; `folder` is for what its encoder needs."""
    data = pydicom.dcmread(io.BytesIO(_made(syntax, folder)))
    if syntax in ENCAPSULATED:
        return Film(data, syntax, list(generate_frames(data.PixelData, number_of_frames=FRAMES)), folder=folder)
    size = len(data.PixelData) // FRAMES
    return Film(data, syntax, [data.PixelData[size * number :][:size] for number in range(FRAMES)])


# --- whatever the syntax ---


def extended(film: Film, word: bytes, _at: int) -> None:
    film.data.add_new(0x7FE00001, "OV", word + bytes(-len(word) % 8))
    film.data.add_new(0x7FE00002, "OV", word + bytes(-len(word) % 8))


def total_length(film: Film, word: bytes, _at: int) -> None:
    film.data.add_new(0x7FE00003, "UV", int.from_bytes(word[:8], "little"))


def behind_the_value(film: Film, word: bytes, _at: int) -> None:
    film.trailing = struct.pack("<HH2sHL", 0xFFFC, 0xFFFC, b"OB", 0, len(word)) + word


EVERYWHERE: dict[str, Place] = {
    "the extended offset table": extended,
    "the total length": total_length,
    "behind the dataset": behind_the_value,
}

# --- native ---


def padding(film: Film, word: bytes, _at: int) -> None:
    film.behind.append(word + b" " * (len(word) % 2))


def spare_bits(film: Film, word: bytes, at: int) -> None:
    """Four bits of each cell for half a letter."""
    order = ">" if film.syntax == BIG_ENDIAN else "<"
    cells = np.frombuffer(film.frames[at % FRAMES], f"{order}u2").copy()
    halves = [half for letter in word for half in (letter >> 4, letter & 15)]
    cells[: len(halves)] |= np.array(halves, dtype=np.uint16) << 12
    film.frames[at % FRAMES] = cells.tobytes()


NATIVE_PLACES: dict[str, Place] = {"padding behind the frames": padding, "bits above BitsStored": spare_bits}

# --- every container of frames ---


def fragment_behind(film: Film, word: bytes, _at: int) -> None:
    film.behind.append(word)


def fragment_before(film: Film, word: bytes, _at: int) -> None:
    film.before.append(word)


def offset_table(film: Film, word: bytes, _at: int) -> None:
    film.table = word + bytes(-len(word) % 4)


def a_frame_too_many(film: Film, word: bytes, at: int) -> None:
    film.behind.append(film.frames[at % FRAMES] + word)


def behind_a_frame(film: Film, word: bytes, at: int) -> None:
    film.frames[at % FRAMES] += word


CONTAINER_PLACES: dict[str, Place] = {
    "a fragment behind the frames": fragment_behind,
    "a fragment before the frames": fragment_before,
    "the offset table": offset_table,
    "a frame beyond those of the header": a_frame_too_many,
    "behind the end of a frame": behind_a_frame,
}

# --- JPEG and JPEG-LS ---


def jpeg_segments(stream: bytes) -> list[int]:
    """Where segments begin, up to and with the first scan."""
    found, at = [], 2
    while True:
        found.append(at)
        if stream[at + 1] == 0xDA:
            return found
        at += 2 + int(struct.unpack_from(">H", stream, at + 2)[0])


def _into(film: Film, at: int, segment: bytes) -> None:
    stream = film.frames[at % FRAMES]
    places = jpeg_segments(stream)
    place = places[at % len(places)]
    film.frames[at % FRAMES] = stream[:place] + segment + stream[place:]


def segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def comment(film: Film, word: bytes, at: int) -> None:
    _into(film, at, segment(0xFE, word))


def application(film: Film, word: bytes, at: int) -> None:
    _into(film, at, segment(0xE0 + at % 16, word))


def decoders_application(film: Film, word: bytes, at: int) -> None:
    """Under the name of a segment that says how to decode, in the fields that nobody reads."""
    kinds = [
        (0xE0, b"JFIF\0\1\1\0" + word),
        (0xEE, b"Adobe" + word[:6] + b"\0"),
        (0xEE, b"Adobe\0\x64\0\0\0\0\0" + word),
    ]
    if film.syntax in _LS:
        kinds = [(0xE8, b"SPIFF\0\2\0" + word[:22].ljust(22, b"\0"))]
    _into(film, at, segment(*kinds[at % len(kinds)]))


def reserved(film: Film, word: bytes, at: int) -> None:
    _into(film, at, segment(0xF9 + at % 4, word))


def quantiser_nobody_names(film: Film, word: bytes, at: int) -> None:
    _into(film, at, segment(0xDB, b"\3" + word.ljust(64, b"\1")[:64]))


def huffman_table_nobody_names(film: Film, word: bytes, at: int) -> None:
    letters = bytes(dict.fromkeys(word))
    _into(film, at, segment(0xC4, b"\x13" + bytes(15) + bytes([len(letters)]) + letters))


def behind_the_scan(film: Film, word: bytes, at: int) -> None:
    stream = film.frames[at % FRAMES]
    end = stream.rindex(b"\xff\xd9")
    film.frames[at % FRAMES] = stream[:end] + word + stream[end:]


def before_the_end(film: Film, word: bytes, at: int) -> None:
    stream = film.frames[at % FRAMES]
    end = stream.rindex(b"\xff\xd9")
    film.frames[at % FRAMES] = stream[:end] + segment(0xFE, word) + stream[end:]


def palette(film: Film, word: bytes, at: int) -> None:
    _into(film, at, segment(0xF8, b"\2\1\1" + word))


def deeper_stream(film: Film, word: bytes, at: int) -> None:
    """A stream of sixteen bits under a header of twelve."""
    frames = cells(film.syntax)
    halves = [half for letter in word for half in (letter >> 4, letter & 15)]
    frames[at % FRAMES].reshape(-1)[: len(halves)] |= np.array(halves, dtype=np.uint16) << 12
    data = pydicom.dcmread(io.BytesIO(encoded(film.syntax, film.folder, frames, 16)))
    film.frames = list(generate_frames(data.PixelData, number_of_frames=FRAMES))


_DEEPER: dict[str, Place] = {"bits above BitsStored": deeper_stream}
_LS = {_JPEG + "80", _JPEG + "81"}
JPEG_PLACES: dict[str, Place] = {
    "a comment": comment,
    "an application segment": application,
    "free fields of a decoder's application segment": decoders_application,
    "a reserved segment": reserved,
    "behind the scan": behind_the_scan,
    "between the scan and the end": before_the_end,
}
JPEG_TABLES: dict[str, Place] = {
    "a quantisation table nobody names": quantiser_nobody_names,
    "a Huffman table nobody names": huffman_table_nobody_names,
}

# --- JPEG 2000 and HTJ2K ---


def _j2k_into(film: Film, at: int, inserted: bytes) -> None:
    """In the main header, or in the header of the tile-part."""
    stream = film.frames[at % FRAMES]
    sot = stream.index(b"\xff\x90")
    if at % 2:
        film.frames[at % FRAMES] = stream[:sot] + inserted + stream[sot:]
        return
    film.frames[at % FRAMES] = _longer(stream[: sot + 12] + inserted + stream[sot + 12 :], sot, len(inserted))


def _longer(stream: bytes, sot: int, by: int) -> bytes:
    changed = bytearray(stream)
    (length,) = struct.unpack_from(">L", stream, sot + 6)
    if length:
        struct.pack_into(">L", changed, sot + 6, length + by)
    return bytes(changed)


def j2k_comment(film: Film, word: bytes, at: int) -> None:
    _j2k_into(film, at, segment(0x64, b"\0\1" + word))


def j2k_unknown(film: Film, word: bytes, at: int) -> None:
    _j2k_into(film, at, segment(0x70 + at % 4, word))


def j2k_lengths(film: Film, word: bytes, at: int) -> None:
    _j2k_into(film, at, segment(0x58 if at % 2 == 0 else (0x55, 0x57, 0x63)[at % 3], b"\0" + word))


def j2k_absent_component(film: Film, word: bytes, at: int) -> None:
    _j2k_into(film, at, segment((0x53, 0x5D)[at // 2 % 2], b"\xc8" + word))


def j2k_longer(film: Film, word: bytes, at: int) -> None:
    """Behind what COD or QCD need."""
    marker = (0x52, 0x5C)[at // 3 % 2]
    stream = film.frames[at % FRAMES]
    place = stream.index(bytes([0xFF, marker]))
    (length,) = struct.unpack_from(">H", stream, place + 2)
    end = place + 2 + length
    film.frames[at % FRAMES] = (
        stream[: place + 2] + struct.pack(">H", length + len(word)) + stream[place + 4 : end] + word + stream[end:]
    )


def j2k_behind_the_tile(film: Film, word: bytes, at: int) -> None:
    behind_the_scan(film, word, at)


def j2k_behind_the_packets(film: Film, word: bytes, at: int) -> None:
    stream = film.frames[at % FRAMES]
    end = stream.rindex(b"\xff\xd9")
    film.frames[at % FRAMES] = _longer(stream[:end] + word + stream[end:], stream.index(b"\xff\x90"), len(word))


def jp2_box(film: Film, word: bytes, at: int) -> None:
    def box(kind: bytes, inside: bytes) -> bytes:
        return struct.pack(">L4s", 8 + len(inside), kind) + inside

    boxes = [box(b"jP  ", b"\r\n\x87\n"), box(b"ftyp", b"jp2 \0\0\0\0jp2 "), box(b"jp2c", film.frames[at % FRAMES])]
    boxes.insert(1 + at % 3, box((b"xml ", b"uuid", b"free")[at % 3], word))
    film.frames[at % FRAMES] = b"".join(boxes)


J2K_PLACES: dict[str, Place] = {
    "a comment": j2k_comment,
    "a segment of nobody's": j2k_unknown,
    "packet and tile-part lengths": j2k_lengths,
    "coding of a component that is not there": j2k_absent_component,
    "behind what a segment needs": j2k_longer,
    "between the last tile-part and the end": j2k_behind_the_tile,
    "behind the packets": j2k_behind_the_packets,
    "a box of a JP2 file": jp2_box,
}

# --- RLE ---


def _rle_apart(frame: bytes) -> list[bytes]:
    count, *offsets = struct.unpack_from("<16L", frame)
    ends = [*offsets[1:count], len(frame)]
    return [frame[start:end] for start, end in zip(offsets, ends, strict=False)]


def _rle_together(segments: list[bytes], *, gap: bytes = b"", unused: bytes = b"") -> bytes:
    places, at = [], 64 + len(gap)
    for part in segments:
        places.append(at)
        at += len(part) + len(gap)
    header = struct.pack(f"<{1 + len(places)}L", len(segments), *places)
    header += unused[: 64 - len(header)].ljust(64 - len(header), b"\0")
    return header + b"".join(gap + part for part in segments)


def rle_between(film: Film, word: bytes, at: int) -> None:
    film.frames[at % FRAMES] = _rle_together(_rle_apart(film.frames[at % FRAMES]), gap=word)


def rle_unused_offsets(film: Film, word: bytes, at: int) -> None:
    film.frames[at % FRAMES] = _rle_together(_rle_apart(film.frames[at % FRAMES]), unused=word)


def rle_behind_a_segment(film: Film, word: bytes, at: int) -> None:
    parts = _rle_apart(film.frames[at % FRAMES])
    parts[at % len(parts)] += word
    film.frames[at % FRAMES] = _rle_together(parts)


def rle_segment_too_many(film: Film, word: bytes, at: int) -> None:
    film.frames[at % FRAMES] = _rle_together([*_rle_apart(film.frames[at % FRAMES]), word])


def rle_spare_bits(film: Film, word: bytes, at: int) -> None:
    """Runs of the upper byte that say the same in the bits that are stored."""
    parts = _rle_apart(film.frames[at % FRAMES])
    cells = np.frombuffer(film.data.pixel_array[at % FRAMES].astype("<u2").tobytes(), np.uint8)[1::2].copy()
    cells[: 2 * len(word)] |= np.array([half << 4 for one in word for half in (one >> 4, one & 15)], dtype=np.uint8)
    upper = b"".join(bytes([127]) + cells[start : start + 128].tobytes() for start in range(0, len(cells), 128))
    film.frames[at % FRAMES] = _rle_together([upper + b"\0" * (len(upper) % 2), parts[1]])


RLE_PLACES: dict[str, Place] = {
    "between header and segments": rle_between,
    "offsets nobody uses": rle_unused_offsets,
    "behind a segment": rle_behind_a_segment,
    "a segment too many": rle_segment_too_many,
    "bits above BitsStored": rle_spare_bits,
}

_NATIVE = {**EVERYWHERE, **NATIVE_PLACES}
_FRAMED = {**EVERYWHERE, **CONTAINER_PLACES}
_JPEG_ALL, _JPEG_LS, _J2K = (
    {**_FRAMED, **JPEG_PLACES, **JPEG_TABLES},
    {**_FRAMED, **JPEG_PLACES, **_DEEPER, "a mapping table": palette},
    {**_FRAMED, **J2K_PLACES},
)
_DEEP_JPEG = {**_JPEG_ALL, **_DEEPER}
# A syntax that is not in here, or a place in here that no family has, fails `test_every_syntax_has_its_places`.
PLACES: dict[str, dict[str, Place]] = {
    **dict.fromkeys((IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN), _NATIVE),
    **dict.fromkeys((_JPEG + tail for tail in ("50", "51")), _JPEG_ALL),
    **dict.fromkeys((_JPEG + tail for tail in ("57", "70")), _DEEP_JPEG),
    **dict.fromkeys((_JPEG + tail for tail in ("80", "81")), _JPEG_LS),
    _JPEG + "90": {**_J2K, **_DEEPER},
    **dict.fromkeys((_JPEG + tail for tail in ("91", "201", "202", "203")), _J2K),
    "1.2.840.10008.1.2.5": {**_FRAMED, **RLE_PLACES},
}
# Part 2 of JPEG 2000: the same container, and no encoder of it is at hand. JPEG XL and deflated frames have tests of
# their own: nothing decodes the one, and the other leaves as native pixels.
WITHOUT_ENCODER = frozenset({*(_JPEG + tail for tail in ("92", "93", "110", "111", "112")), DEFLATED_FRAMES})
ALL = [(syntax, place) for syntax in sorted(PLACES) for place in PLACES[syntax]]
# What no decoder here takes, or where text that long is no chance: held, and nothing is published.
MAY_BE_HELD = {(syntax, "behind the scan") for syntax in _LS} | {
    (syntax, "behind the packets") for syntax in PLACES if "behind the packets" in PLACES[syntax]
}


# --- for tests that say themselves what stands behind a word ---

CODED = {"behind the scan", "behind the packets"}
MAY_BE_HELD_AT_ITS_END = {syntax for syntax, place in MAY_BE_HELD if place in CODED}


def before_the_last_marker(film: Film, word: bytes, at: int) -> None:
    place = j2k_behind_the_packets if "behind the packets" in PLACES[film.syntax] else behind_the_scan
    place(film, word, at)


def in_two_tile_parts(film: Film, word: bytes, at: int) -> None:
    """The word behind all packets, and behind it another tile-part of the same tile that has none."""
    j2k_behind_the_packets(film, word, at)
    stream = bytearray(film.frames[at % FRAMES])
    sot, end = stream.index(b"\xff\x90"), stream.rindex(b"\xff\xd9")
    stream[sot + 11] = 2
    struct.pack_into(">L", stream, sot + 6, end - sot)
    film.frames[at % FRAMES] = (
        bytes(stream[:end]) + struct.pack(">HHHLBBH", 0xFF90, 10, 0, 14, 1, 2, 0xFF93) + stream[end:]
    )


def j2k_packed(film: Film, word: bytes, at: int) -> None:
    """In a segment that may be the packets' headers, a transform's, an order of progression or a capability."""
    stream = film.frames[at % FRAMES]
    sot = stream.index(b"\xff\x90")
    if at % 5 == 0:
        film.frames[at % FRAMES] = _longer(
            stream[: sot + 12] + segment(0x61, b"\0" + word) + stream[sot + 12 :], sot, len(word) + 5
        )
        return
    kind = [(0x60, b"\0" + word), (0x74, b"\0\0" + word), (0x5F, (3 * word)[:21]), (0x50, b"\xff\xff\xff\xff" + word)]
    film.frames[at % FRAMES] = stream[:sot] + segment(*kind[at % 5 - 1]) + stream[sot:]
