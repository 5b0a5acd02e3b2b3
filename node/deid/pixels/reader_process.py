"""The reader process: `python -m node.deid.pixels.reader_process`, started by the gate and by nobody else.

Foreign machine code (decoders, the text engine) works on foreign bytes here, under a limit of memory, at low priority,
without core dumps, and with nobody listening to its output: one JSON line comes in for each group of files, one goes
out; `{"alive": true}` between them.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from node.deid.pixels.duplicates import fingerprint
from node.deid.pixels.examiner import examine
from node.deid.pixels.find_text import TextFinder
from node.deid.pixels.frames import NotDecoded
from node.deid.pixels.look_first import SeriesLook
from node.deid.pixels.ocr import RapidReader
from node.deid.pixels.quick_look import SmallDetector
from node.deid.pixels.settle import settle
from node.deid.pixels.values import PixelVerdict

# Its own, whatever the worker may. Loaded: 0.4 GB of address space; at work on 2000 x 2000: 1.4 GB.
MEMORY_BYTES = 1536 << 20


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the gate ends us, or the end of its pipe
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold pixels
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)  # libraries quote what they read
    _say(answers, {"ready": True})
    reader: RapidReader | None = None
    for line in sys.stdin:
        request = json.loads(line)
        paths = [Path(path) for path in request["paths"]]
        if "key" in request:
            _say(answers, {"fingerprints": [_fingerprint(path, bytes.fromhex(request["key"])) for path in paths]})
            continue
        if "settle" in request:
            _say(answers, {"settled": [_settled(path, lambda: _say(answers, {"alive": True})) for path in paths]})
            continue
        reader = reader or RapidReader()
        looker = TextFinder(reader, request["every_frame"], lambda: _say(answers, {"alive": True}))
        if request["quick"]:
            verdicts = SeriesLook(SmallDetector(reader.detector), looker).examine(paths, doubt=request["doubt"])
        else:
            verdicts = examine(looker, paths, doubt=request["doubt"])
        _say(answers, {"verdicts": [_plain(verdict) for verdict in verdicts]})


def _fingerprint(path: Path, key: bytes) -> str | None:
    try:
        return fingerprint(path, key).hex()
    except NotDecoded:
        return None


def _settled(path: Path, alive: Callable[[], None]) -> bool | None:
    try:
        return settle(path, alive)
    except NotDecoded:
        return None


def _say(answers: TextIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def _plain(verdict: PixelVerdict) -> dict[str, Any]:
    return {
        "state": verdict.state.value,
        "finding": verdict.finding.value if verdict.finding else None,
        "regions": [[box.frame, box.left, box.top, box.right, box.bottom] for box in verdict.regions],
        "read": verdict.read,
    }


if __name__ == "__main__":
    main()
