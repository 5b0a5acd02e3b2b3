"""Coverage-guided fuzzing of gate 0's reader and writer. Never a crash, a hang or a partial output.

usage: tests/fuzz/run.sh [SECONDS]      or: reader.py [libFuzzer option...] CORPUS
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

with atheris.instrument_imports(include=["node.deid", "mediator.deid"]):
    from mediator.deid.pseudonyms import Pseudonyms
    from mediator.deid.screening import Exclusion
    from mediator.deid.values import Subject
    from node.deid.engine import Source, open_engine

KEYED = Pseudonyms(bytes(32), "fuzz")
ENGINE = open_engine("eucaim")
TARGET = Path(tempfile.mkdtemp(prefix="cloister-fuzz-")) / "out.dcm"


def one_input(content: bytes) -> None:
    """What stands reads again, whole, and has the same pixels; what is refused left nothing behind."""
    source = ENGINE.read(content)
    if isinstance(source, Exclusion):
        return
    refused = ENGINE.write(source, Subject(KEYED, KEYED.patient("1"), 10), TARGET)
    assert TARGET.exists() == (refused is None)
    if refused is None:
        raw = TARGET.read_bytes()
        TARGET.unlink()
        again = ENGINE.read(raw)
        assert not isinstance(again, Exclusion) and again.finding is None
        assert (again.parsed.pixels is None) == (source.parsed.pixels is None)
        if again.parsed.pixels is not None and again.parsed.pixels.fragments is None:
            assert _pixels(again) == _pixels(source)


def _pixels(source: Source) -> bytes:
    pixels = source.parsed.pixels
    return source.parsed.stream.read(pixels.start, pixels.end - pixels.start) if pixels is not None else b""


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1:2] == ["--seed"]:
        from tests.sim.dicom_variety import variety

        for number, (_, content) in enumerate(variety(7, 40)):
            Path(sys.argv[2], f"seed-{number:03d}").write_bytes(content)
    else:
        atheris.Setup(sys.argv, one_input)
        atheris.Fuzz()
