"""What the reader process does for the slices of a series: a quick look at all, a proper one at what that suspects.

1. Slices of one shape are taken in chunks of at most 32, decoded once; up to six are read properly at once.
2. A suspected file is examined by itself: read, blacked out, read again, or held.
3. Where that finds something, the slices with as many strokes in the same place are read too, and the rest is looked
   at again as if those read were not there; after `ROUNDS` times everything left of the chunk is read.
4. Colours, and bits of a cell that are not stored, are no slices: such a file is examined by itself.
5. Slices whose values span a small part of what others' do, would show nothing among them: they are looked at apart.
6. What was looked at and not suspected is clean, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from node.deid.pixels.examiner import examine, passed
from node.deid.pixels.find_text import Spot, TextFinder
from node.deid.pixels.frames import Film, NotDecoded, Values, decode, open_film, stored, stray_planes, window
from node.deid.pixels.projections import FEW_FRAMES, landmarks, runs_alike
from node.deid.pixels.quick_look import Detector, QuickLook, Suspect, grey
from node.deid.pixels.values import PixelFinding, PixelState, PixelVerdict

ROUNDS = 3
# Slices of a chunk, their strokes and what they were decoded from stay under some 150 MB.
_CHUNK_PIXELS = 1 << 24
_SMALL_PART = 0.4


class SeriesLook:
    """Looks at the files of one series. `finder` looks properly."""

    def __init__(self, detector: Detector, finder: TextFinder) -> None:
        self._detector = detector
        self._finder = finder

    def examine(self, paths: Sequence[Path], *, doubt: bool) -> list[PixelVerdict]:
        """One verdict per file. Never raises for what a file holds, but for memory and disk."""
        films: dict[int, Film] = {}
        verdicts: dict[int, PixelVerdict] = {}
        for place, path in enumerate(paths):
            try:
                films[place] = open_film(path)
            except NotDecoded:
                verdicts[place] = PixelVerdict(PixelState.REVIEW, PixelFinding.NOT_DECODED)
        looked_at = dict.fromkeys(films, 0)
        for spots in _chunks(films):
            one = _Chunk(self._detector, self._finder, films, spots, verdicts, doubt)
            one.look()
            for place in {place for place, _frame in spots}:
                looked_at[place] += one.read
        for place, film in films.items():
            if place not in verdicts:
                verdicts[place] = passed(film, looked_at[place])  # (6)
        return [verdicts[place] for place in range(len(paths))]


class _Chunk:
    """Slices that are looked at together. `verdicts` grows by what is examined properly."""

    def __init__(
        self,
        detector: Detector,
        finder: TextFinder,
        films: dict[int, Film],
        spots: Sequence[Spot],
        verdicts: dict[int, PixelVerdict],
        doubt: bool,
    ) -> None:
        self.read = 0
        self._detector, self._finder, self._doubt = detector, finder, doubt
        self._films, self._verdicts = films, verdicts
        self._spots = list(spots)

    def look(self) -> None:
        if len(self._spots) <= FEW_FRAMES:
            self._properly(self._spots)  # (1)
            return
        frames = self._decoded()
        spots = self._spots
        for places in _comparable(frames):
            self._spots = [spots[place] for place in places]
            self._quickly([frames[place] for place in places])

    def _quickly(self, frames: list[Values]) -> None:
        """What `_spots` show."""
        low, high = window([frames[mark] for mark in landmarks(len(frames))])
        look = QuickLook(self._detector, [grey(frame, low, high) for frame in frames])
        read = self.read
        for _round in range(ROUNDS):
            suspects = look.suspects(self._done())
            self.read, found = read + look.read, self._confirmed(suspects)
            if not found:
                return
            also = {place for suspect in found for place in look.alike(suspect, self._done())}
            self._properly([self._spots[place] for place in sorted(also)])  # (3)
        self._properly(self._spots)

    def _decoded(self) -> list[Values]:
        """The stored values of the slices nobody looked at yet; what is no slice is examined by itself."""
        frames, kept = [], []
        for place, group in groupby(self._spots, key=lambda spot: spot[0]):
            several, film = list(group), self._films[place]
            if place in self._verdicts:
                continue
            try:
                cells = list(decode(film, [frame for _place, frame in several], every_bit=True))
            except NotDecoded:
                self._verdicts[place] = PixelVerdict(PixelState.REVIEW, PixelFinding.NOT_DECODED)
                continue
            self._finder.alive()
            if film.samples > 1 or any(stray_planes(film, frame) for frame in cells):  # (4)
                self._properly(several)
                continue
            frames += [stored(film, frame) for frame in cells]
            kept += several
        self._spots = kept
        return frames

    def _done(self) -> set[int]:
        """Which of the spots are of a file that was examined properly."""
        return {place for place, spot in enumerate(self._spots) if spot[0] in self._verdicts}

    def _confirmed(self, suspects: Sequence[Suspect]) -> list[Suspect]:
        """(2) The suspects in whose file something was found."""
        self._properly([self._spots[suspect.slice] for suspect in suspects])
        return [one for one in suspects if self._verdicts[self._spots[one.slice][0]].state is not PixelState.CLEAN]

    def _properly(self, spots: Sequence[Spot]) -> None:
        for place in dict.fromkeys(place for place, _frame in spots):
            if place not in self._verdicts:
                (self._verdicts[place],) = examine(self._finder, [self._films[place].path], doubt=self._doubt)


def _chunks(films: dict[int, Film]) -> list[list[Spot]]:
    """(1)"""

    def shape(spot: Spot) -> tuple[int, ...]:
        film = films[spot[0]]
        return film.rows, film.columns, film.samples, film.bits_allocated

    spots = [(place, frame) for place, film in films.items() for frame in range(film.frames)]
    return list(runs_alike(spots, shape, _CHUNK_PIXELS))


def _comparable(frames: Sequence[Values]) -> list[list[int]]:
    """(5) Places of frames that one window shows."""
    spans = [high - low for low, high in (window([frame]) for frame in frames)]
    found: list[list[int]] = []
    for place in sorted(range(len(frames)), key=lambda place: -spans[place]):
        if not found or spans[place] < _SMALL_PART * spans[found[-1][0]]:
            found.append([])
        found[-1].append(place)
    return [sorted(places) for places in found]
