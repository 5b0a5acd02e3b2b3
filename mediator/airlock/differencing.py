"""What sums give away: a cell that is not shown, computed from those that are, in one file or over several.

Everything an analysis shows is a count over some of one population, cut by labels. A cell not shown (left empty, or
left out: what could be shown is what the permit's words make) keeps its secret when there is **room** in it: a group of
people, one word of every label of the job, of which the cell is a part and that no number shown counts. However many
people were in that group, every file would look the same; so no sum and no difference, of any number of files, gives
the cell away. One grand total anywhere counts everybody and leaves no room.

This is stricter than the audit by linear programming of the SDC Handbook (2019, chapter 4), which lets a cell pass
when its value is uncertain enough, and it needs no solver. Labels of the same name are the same cut of the same people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import prod

from mediator.analysis import TOTAL

Key = frozenset[tuple[str, str]]
"""Some labels with a word each; the labels not in it are summed over."""

# Beside a table of more cells than this nothing may be hidden: there is no end to where room could be.
_MOST_CELLS = 10_000
# Steps of the search for room, about a microsecond each; what is not found within them counts as not there.
_MOST_STEPS = 3_000_000


@dataclass(frozen=True)
class Group:
    """One table's counts. `words` has a set of words for each of `labels`; `shown` a count for each key with one."""

    labels: tuple[str, ...]
    words: tuple[frozenset[str], ...]
    shown: dict[Key, int]

    @property
    def cells(self) -> int:
        """How many cells the words make."""
        return prod(len(words) for words in self.words)

    def is_cell(self, key: Key) -> bool:
        """Whether nothing is summed over in this key."""
        return len(key) == len(self.labels)

    def hidden(self) -> Iterator[Key]:
        """The cells not shown, in an order that is always the same."""
        for words in product(*map(sorted, self.words)):
            key = frozenset(zip(self.labels, words, strict=True))
            if key not in self.shown:
                yield key

    def sums(self) -> dict[Key, int]:
        """What anybody can add up: sums over some labels that do not stand there themselves, where every cell that they
        are made of does."""
        cells = [(sorted(key), number) for key, number in self.shown.items() if self.is_cell(key)]
        size = dict(zip(self.labels, map(len, self.words), strict=True))
        found: dict[Key, int] = {}
        for length in range(len(self.labels)):
            for kept in combinations(self.labels, length):
                parts: Counter[Key] = Counter()
                total: Counter[Key] = Counter()
                for cell, number in cells:
                    key = frozenset(part for part in cell if part[0] in kept)
                    parts[key] += 1
                    total[key] += number
                whole = prod(words for label, words in size.items() if label not in kept)
                found |= {key: total[key] for key, many in parts.items() if many == whole and key not in self.shown}
        return found

    def contradictions(self, patients: int) -> int:
        """Counts that cannot be: more patients than there were, cells that overlap, a sum that is not its cells'."""
        cells = {key: number for key, number in self.shown.items() if self.is_cell(key)}
        wrong = sum(number > patients for number in self.shown.values()) + int(sum(cells.values()) > patients)
        if len(cells) < self.cells:
            return wrong
        sums = (key for key in self.shown if not self.is_cell(key))
        return wrong + sum(self.shown[key] != sum(n for cell, n in cells.items() if key <= cell) for key in sums)


def group_of(
    labels: Sequence[str],
    words: Sequence[frozenset[str]],
    keys: Iterable[Sequence[str]],
    counts: Iterable[int | None],
) -> Group:
    """A table's counts: `keys` has a word, or `total`, for each label of each row; a count of None is not shown."""
    shown: dict[Key, int] = {}
    for row, number in zip(keys, counts, strict=True):
        if number is not None:
            shown[frozenset((name, word) for name, word in zip(labels, row, strict=True) if word != TOTAL)] = number
    return Group(tuple(labels), tuple(words), shown)


def revealing(groups: Sequence[Group], steps: int = _MOST_STEPS) -> list[int]:
    """For each table of one run, how many of its cells are not shown and have no room, given all that they all show."""
    hidden = [group.cells - sum(map(group.is_cell, group.shown)) for group in groups]
    if not any(hidden) or any(group.cells > _MOST_CELLS for group in groups):
        return hidden
    cells = [list(group.hidden()) for group in groups]
    search = _Search(frozenset(key for group in groups for key in group.shown), cells, steps)
    return [sum(not search.has_room(cell) for cell in each) for each in cells]


class _Search:
    """Looks for groups of people that no number shown counts: a cell not shown in every table at once."""

    def __init__(self, known: frozenset[Key], hidden: list[list[Key]], steps: int) -> None:
        self._known = known
        # a key is looked up by its labels: what is shown about these, with these words?
        self._shapes = {frozenset(name for name, _ in key) for key in known}
        self._hidden = sorted(hidden, key=len)
        self._with = [_by_word(cells) for cells in self._hidden]
        self._labels = {frozenset(name for name, _ in cells[0]) for cells in hidden if cells}
        self._steps = steps
        self._roomy: set[Key] = set()

    def has_room(self, cell: Key) -> bool:
        """Whether some people of `cell` are counted nowhere; what was found for one cell serves the others it meets."""
        if cell not in self._roomy and (people := self._people(dict(cell), 0)) is not None:
            self._roomy.update(frozenset((name, people[name]) for name in labels) for labels in self._labels)
        return cell in self._roomy

    def _people(self, people: dict[str, str], table: int) -> dict[str, str] | None:
        if self._steps < 0 or self._is_counted(people):
            return None
        if table == len(self._hidden):
            return people
        with_word = (self._with[table][part] for part in people.items() if part in self._with[table])
        for cell in min(with_word, key=len, default=self._hidden[table]):
            self._steps -= 1
            if self._steps < 0:
                return None
            if all(people.get(name, word) == word for name, word in cell):
                found = self._people({**people, **dict(cell)}, table + 1)
                if found is not None:
                    return found
        return None

    def _is_counted(self, people: dict[str, str]) -> bool:
        self._steps -= len(self._shapes)
        return any(
            frozenset((name, people[name]) for name in shape) in self._known
            for shape in self._shapes
            if shape <= people.keys()
        )


def _by_word(cells: list[Key]) -> dict[tuple[str, str], list[Key]]:
    """The cells that have a word, for each."""
    found: dict[tuple[str, str], list[Key]] = {}
    for cell in cells:
        for part in cell:
            found.setdefault(part, []).append(cell)
    return found
