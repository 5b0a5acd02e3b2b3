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

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from mediator.analysis import TOTAL

Key = frozenset[tuple[str, str]]
"""Some labels with a word each; the labels not in it are summed over."""

# A table of more cells than this that does not show them all is refused rather than searched.
_MOST_CELLS = 20_000
# Steps of the search for room, for one file; what is not found within them counts as not there.
_MOST_STEPS = 200_000


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


def revealing(group: Group, groups: Sequence[Group]) -> int:
    """How many cells of `group` are not shown and have no room, given everything that `groups` (it too) show."""
    known = frozenset(key for other in groups for key in other.shown)
    cells = sum(map(group.is_cell, group.shown))
    if cells == group.cells:
        return 0
    if any(other.cells > _MOST_CELLS for other in groups):
        return group.cells - cells
    search = _Search(known, [list(other.hidden()) for other in groups])
    return sum(not search.finds_room(dict(cell)) for cell in group.hidden())


class _Search:
    """Looks for a group of people that no number shown counts: a cell not shown in every table at once."""

    def __init__(self, known: frozenset[Key], hidden: list[list[Key]]) -> None:
        self._known = known
        # a key is looked up by its labels: what is shown about these, with these words?
        self._shapes = {frozenset(name for name, _ in key) for key in known}
        self._hidden = sorted(hidden, key=len)
        self._steps = _MOST_STEPS

    def finds_room(self, people: dict[str, str], table: int = 0) -> bool:
        self._steps -= 1
        if self._steps < 0 or self._is_counted(people):
            return False
        if table == len(self._hidden):
            return True
        return any(
            self.finds_room({**people, **dict(cell)}, table + 1)
            for cell in self._hidden[table]
            if all(people.get(name, word) == word for name, word in cell)
        )

    def _is_counted(self, people: dict[str, str]) -> bool:
        return any(
            frozenset((name, people[name]) for name in shape) in self._known
            for shape in self._shapes
            if shape <= people.keys()
        )
