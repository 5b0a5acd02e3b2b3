"""What the reader process does for one group of files: look, black out, look again, write or hand to review.

1. Text of two characters or more is blacked out, and the result read again, at most `ROUNDS` times until none is left.
2. What only a projection shows, what nobody can name and a second look says was drawn, what hides in other bits: to
   review.
3. A file is replaced by one rename, when it is finished; a file for review keeps its bytes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from node.deid.pixels.find_text import FoundText, TextFinder
from node.deid.pixels.frames import Film, NotDecoded, open_film
from node.deid.pixels.ocr import Box
from node.deid.pixels.rewrite import NotWritable, widened, write_copy
from node.deid.pixels.values import PixelFinding, PixelState, PixelVerdict, Region

# A second reading often finds what the first overlooked beside brighter words; a third, hardly ever.
ROUNDS = 3
# An account of regions, not of noise: a picture with more of them needs a person's eyes anyway.
MAX_REGIONS = 1000


@dataclass
class _File:
    """One file on its way to a verdict."""

    original: Film
    film: Film  # the original, or the latest copy with boxes blacked out
    boxes: dict[int, list[Box]]
    read: int = 0
    finding: PixelFinding | None = None
    looked_at: tuple[Region, ...] = ()
    doubtful: dict[int, list[Box]] = field(default_factory=dict)  # of any round: black beside them may hide them later


def examine(looker: TextFinder, paths: Sequence[Path], *, doubt: bool) -> list[PixelVerdict]:
    """One verdict per file; the files are looked at together. `doubt`: single letters go to review too.

    Never raises for what a file holds, but for memory and disk.
    """
    files: list[_File | None] = []
    for path in paths:
        try:
            film = open_film(path)
            files.append(_File(film, film, {}))
        except NotDecoded:
            files.append(None)
    group = [file for file in files if file is not None]
    try:
        if group:
            _look(looker, group, doubt)
    except NotDecoded:
        if len(group) > 1:  # one of them: each by itself, and only that one is held
            return [examine(looker, [path], doubt=doubt)[0] for path in paths]
        group[0].finding = PixelFinding.NOT_DECODED
    return [_finish(file) if file else PixelVerdict(PixelState.REVIEW, PixelFinding.NOT_DECODED) for file in files]


def passed(film: Film, read: int) -> PixelVerdict:
    """The verdict on a file in which nothing was seen, on `read` pictures; its header says so then."""
    return _finish(_File(film, film, {}, read))


def _look(looker: TextFinder, files: list[_File], doubt: bool) -> None:
    again: set[tuple[int, int]] = set()
    for last in (False,) * (ROUNDS - 1) + (True,):
        sights = looker.look([file.film for file in files], again, doubt=doubt)
        for file, sight in zip(files, sights, strict=True):
            file.read += sight.read
            file.doubtful = _joined(file.doubtful, sight.doubtful)
        found = [place for place, sight in enumerate(sights) if sight.text]
        if not found or last:
            break
        for place in found:
            again |= {(place, frame) for frame in sights[place].text}
            _black_out(files[place], sights[place])
    for file, sight in zip(files, sights, strict=True):
        _judge(file, sight)


def _black_out(file: _File, sight: FoundText) -> None:
    """(1) Always from the original, with all boxes found so far."""
    for frame, boxes in sight.text.items():
        file.boxes.setdefault(frame, []).extend(boxes)
    copy = file.original.path.with_name(file.original.path.name + ".px")
    copy.unlink(missing_ok=True)
    try:
        write_copy(file.original, copy, file.boxes)
        file.film = open_film(copy)
    except NotWritable:
        file.finding = PixelFinding.TEXT_REMAINS
        file.film = file.original


def _judge(file: _File, sight: FoundText) -> None:
    """(2)"""
    unclear = _joined(sight.unconfirmed, _not_blacked_out(file))
    if sight.overlay:
        file.finding = PixelFinding.OVERLAY_IN_PIXELS
    elif sight.text:
        file.finding = PixelFinding.TEXT_REMAINS
        file.looked_at = _regions(file.film, sight.text)
    elif unclear and file.finding is None:
        file.finding = PixelFinding.TEXT_UNREADABLE
        file.looked_at = _regions(file.film, unclear)


def _finish(file: _File) -> PixelVerdict:
    """(3)"""
    copy = file.original.path.with_name(file.original.path.name + ".px")
    if file.finding is not None:
        copy.unlink(missing_ok=True)
        return PixelVerdict(
            PixelState.REVIEW, file.finding, file.looked_at or _regions(file.film, file.boxes), file.read
        )
    if not file.boxes:
        copy.unlink(missing_ok=True)
        write_copy(file.original, copy, {})
    copy.chmod(file.original.path.stat().st_mode & 0o777)
    os.replace(copy, file.original.path)
    state = PixelState.BLACKED_OUT if file.boxes else PixelState.CLEAN
    return replace(PixelVerdict(state), regions=_regions(file.original, file.boxes), read=file.read)


def _not_blacked_out(file: _File) -> dict[int, list[Box]]:
    left = {
        frame: [box for box in boxes if not any(black.covers(box) for black in file.boxes.get(frame, ()))]
        for frame, boxes in file.doubtful.items()
    }
    return {frame: boxes for frame, boxes in left.items() if boxes}


def _joined(first: dict[int, list[Box]], second: dict[int, list[Box]]) -> dict[int, list[Box]]:
    return {frame: [*first.get(frame, ()), *second.get(frame, ())] for frame in {*first, *second}}


def _regions(film: Film, boxes: dict[int, list[Box]]) -> tuple[Region, ...]:
    wide = [(frame, widened(box, film)) for frame, found in boxes.items() for box in found]
    regions = {Region(frame, box.left, box.top, box.right, box.bottom) for frame, box in wide}
    return tuple(sorted(regions)[:MAX_REGIONS])
