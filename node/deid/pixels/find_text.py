"""Where text stands in the frames of some files, by reading as few pictures as will find it.

1. Frames of one shape are taken in chunks of at most 32; few frames, or `every_frame`, are read one by one.
2. Of a chunk three projections are read, and the first, middle and last frame of all.
3. A hit in any of them reads every frame of the chunk; the frames decide where text is. A box that nobody can name is
   a hit as text is, but in segmentations and doses, which are no pictures (a ring is an organ there, not the letter
   O); a single letter (a side marker) only with `doubt`.
4. A projection's text that no frame shows is unconfirmed: a person decides.
5. Bits outside the stored ones are read as pictures of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from node.deid.pixels.frames import Film, Values, decode, picture, stored, stray_planes, window
from node.deid.pixels.ocr import Box, Picture, TextReader
from node.deid.pixels.projections import FEW_FRAMES, landmarks, projections, runs_alike
from node.deid.pixels.values import NO_PICTURES

Spot = tuple[int, int]
"""(file's place in the series, frame)."""
# Pictures of a chunk and their projections stay under some 400 MB: larger frames come in smaller chunks.
_CHUNK_PIXELS = 1 << 26


@dataclass
class FoundText:
    """What was seen in one file. Boxes by frame; `doubtful`: nobody can name it; `unconfirmed`: seen in a projection of
    its chunk alone."""

    text: dict[int, list[Box]] = field(default_factory=dict)
    doubtful: dict[int, list[Box]] = field(default_factory=dict)
    unconfirmed: dict[int, list[Box]] = field(default_factory=dict)
    overlay: bool = False
    read: int = 0


@dataclass(frozen=True)
class TextFinder:
    """Reads films with a text reader. `alive` is called after each picture, so that a watcher sees progress."""

    reader: TextReader
    every_frame: bool = False
    alive: Callable[[], None] = lambda: None

    def look(self, films: Sequence[Film], again: Collection[Spot] = (), *, doubt: bool = False) -> list[FoundText]:
        """One sight per film. `again`: frames to read whatever the projections show; `doubt`: single letters hit too.

        Raises `NotDecoded`.
        """
        sights = [FoundText() for _film in films]
        spots = [(place, frame) for place, film in enumerate(films) for frame in range(film.frames)]
        marks = {spots[mark] for mark in landmarks(len(spots))} | set(again)

        def shape(spot: Spot) -> tuple[int, int, bool]:
            film = films[spot[0]]
            return film.rows, film.columns, film.samples > 1

        for run in runs_alike(spots, shape, _CHUNK_PIXELS):
            self._chunk(films, run, marks, sights, doubt)
        return sights

    def _chunk(
        self,
        films: Sequence[Film],
        spots: Sequence[Spot],
        marks: Collection[Spot],
        sights: list[FoundText],
        doubt: bool,
    ) -> None:
        low, high = window(list(_values(films, [spots[mark] for mark in landmarks(len(spots))])))
        pictures: list[Picture] = []
        drawn: dict[int, list[Picture]] = {}
        for spot, values in zip(spots, _values(films, spots, every_bit=True), strict=True):
            pictures.append(picture(stored(films[spot[0]], values), low, high))
            for plane in stray_planes(films[spot[0]], values):  # (5)
                drawn.setdefault(spot[0], []).append(plane)
        for place, planes in drawn.items():
            sights[place].overlay |= any(self._read(plane, sights, {place}) for plane in _merged(planes))
        everything = self.every_frame or len(spots) <= FEW_FRAMES  # (1)
        seen: list[Box] = []
        if not everything:
            whose = {place for place, _frame in spots}
            seen = [box for shown in projections(pictures) for box in self._read(shown, sights, whose)]  # (2)
            everything = any(_is_hit(box, film, doubt) for box in seen for film in films)  # (3)
        before = _count(sights)
        for spot, shown in zip(spots, pictures, strict=True):
            if everything or spot in marks:
                self._note(spot, shown, films, sights, doubt)
        if _count(sights) > before and not everything:  # (3) a landmark alone showed it
            for spot, shown in zip(spots, pictures, strict=True):
                if spot not in marks:
                    self._note(spot, shown, films, sights, doubt)
        self._confirm(spots, [box for box in seen if box.readable], sights)

    def _read(self, shown: Picture, sights: list[FoundText], whose: Collection[int]) -> list[Box]:
        boxes = self.reader.read(shown)
        for place in whose:
            sights[place].read += 1
        self.alive()
        return boxes

    def _note(self, spot: Spot, shown: Picture, films: Sequence[Film], sights: list[FoundText], doubt: bool) -> None:
        place, frame = spot
        for box in self._read(shown, sights, {place}):
            if _is_hit(box, films[place], doubt):
                kind = sights[place].text if box.readable else sights[place].doubtful
                kind.setdefault(frame, []).append(box)

    @staticmethod
    def _confirm(spots: Sequence[Spot], seen: Sequence[Box], sights: list[FoundText]) -> None:
        """(4)"""
        shown = [box for place, frame in spots for box in sights[place].text.get(frame, ())]
        alone = [box for box in seen if not any(known.covers(box) or box.covers(known) for known in shown)]
        if alone:
            for place in {place for place, _frame in spots}:
                first = next(frame for where, frame in spots if where == place)
                sights[place].unconfirmed.setdefault(first, []).extend(alone)


def _is_hit(box: Box, film: Film, doubt: bool) -> bool:
    """(3)"""
    if box.readable:
        return True
    return film.modality not in NO_PICTURES and (doubt or not box.marker)


def _count(sights: Sequence[FoundText]) -> int:
    return sum(len(boxes) for sight in sights for seen in (sight.text, sight.doubtful) for boxes in seen.values())


def _values(films: Sequence[Film], spots: Sequence[Spot], *, every_bit: bool = False) -> Iterator[Values]:
    for place, group in groupby(spots, key=lambda spot: spot[0]):
        yield from decode(films[place], [frame for _place, frame in group], every_bit=every_bit)


def _merged(planes: Sequence[Picture]) -> list[Picture]:
    """All planes of a file over one another, and each by itself while they are few."""
    whole = planes[0].copy()
    for plane in planes[1:]:
        whole |= plane
    return [whole, *planes[:FEW_FRAMES]] if len(planes) > 1 else [whole]
