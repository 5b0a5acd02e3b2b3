"""Small counts: "one patient under 30 with this tumour" is a person, not a statistic; nor is the difference of two.

A count below the threshold does not leave, zero included: that nobody is in a cell says something about
everybody who might have been. What left under a permit is remembered, and new counts are held against it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal

from mediator.types import Kind


def releasable(count: int, threshold: int) -> bool:
    """Whether a count may leave. A threshold below 1 is nobody's rule and releases nothing."""
    return threshold >= 1 and count >= threshold


# --- what a rule finds ------------------------------------------------------------------------------------------

Outcome = Literal["pass", "review", "fail"]
Rule = Literal[
    "plain_text", "shape", "columns", "labels", "formulas", "numbers", "identifiers", "threshold", "population",
    "dominance_nk", "dominance_p", "freedom", "extremes", "differencing", "earlier",
]  # fmt: skip


@dataclass(frozen=True)
class DisclosureFinding:
    """One rule on one file: how many cells it looked at, how many it minds, and the limit it held them to."""

    rule: Rule
    result: Outcome
    looked_at: int
    minded: int
    limit: str


# --- counts that left before ----------------------------------------------------------------------------------

Key = tuple[tuple[str, str], ...]
"""Labels with a word each, in order of name; a label summed over is left out."""

# What a person can read; the counts beyond are counted.
MAX_PAIRS = 50


@dataclass(frozen=True)
class ShownCount:
    """A count that stands in a table or among metrics, or that anybody can add up from a table: of which column, of
    which group. `over` are the labels it was added up over."""

    column: str
    key: Key
    count: int
    over: tuple[str, ...] = ()

    @property
    def said(self) -> tuple[str, Key, int]:
        """What it says, whether it stands there or is added up."""
        return (self.column, self.key, self.count)


@dataclass(frozen=True)
class EarlierCounts:
    """What one file or one round shows. `left`: it is outside, or people have let it; else it may still be kept in.

    `counts` is None where it left before counts were kept. `time` is None for another file of the same analysis.
    `for_good`: it is outside, and so never forgotten; what people have let may expire.
    """

    name: str
    run: str
    dataset_version: str
    time: datetime | None
    left: bool
    counts: tuple[ShownCount, ...] | None
    for_good: bool = False


@dataclass(frozen=True)
class NearCount:
    """A count, and the nearest that was shown before: what a person is asked to judge. `others` are as near or nearly.

    `same_group`: the two are said to be of one group of one dataset version, and cannot both be true.
    """

    here: ShownCount
    earlier: ShownCount
    name: str
    run: str
    dataset_version: str
    time: datetime | None
    left: bool
    others: int
    same_group: bool

    @property
    def difference(self) -> int:
        return abs(self.here.count - self.earlier.count)


@dataclass(frozen=True)
class Comparison:
    """How many counts were held against those before; how many contradict one, how many are too near another.

    `pairs` are the first `MAX_PAIRS` of both, contradictions first, then the nearest.
    """

    looked_at: int
    contradictions: int
    near: int
    pairs: tuple[NearCount, ...]

    @property
    def minded(self) -> int:
        return self.contradictions + self.near


@dataclass(frozen=True)
class CountRecord:
    """What was found of a round's counts before people judge them: how many, never which."""

    KIND: ClassVar[str] = "cloister.count-record"
    VERSION: ClassVar[int] = 1

    site: str
    run: str
    round: int
    task: Kind
    dataset_version: str
    outcome: Outcome
    findings: tuple[DisclosureFinding, ...]
    sha256: str


class CountsBefore:
    """All counts that left under one permit, or may leave: what new ones are held against.

    The difference of two counts is a count too: 40 patients and, in another table, 39 of them are one person, whatever
    the job that wrote both calls the two groups. So no label is believed:

    1. A count that has left for this dataset version tells nothing new, and is not judged again.
    2. Two counts of one column and group, of one dataset version, are the same number, or one is wrong.
    3. Two counts that differ by less than the threshold are a person's to judge, equal ones too: the threshold holds
       for nobody as for one. Not the same number of the same group, shown again or added up, and not against another
       count of a file that says this one too: the two left, or will leave, together.

    Counts of two splits of one dataset version are of different patients, because the node, not the job, chooses what
    a task sees: the caller leaves those of the other split out.
    """

    def __init__(self, earlier: Iterable[EarlierCounts]) -> None:
        self._files: list[EarlierCounts] = []
        self._numbers: list[int] = []
        self._different: list[int] = []
        self._numbers_of: list[list[int]] = []
        # by number and file, of at most two groups: one of them is another than the one asked about
        self._at: dict[int, dict[int, list[ShownCount]]] = {}
        self._of_group: dict[tuple[str, str, Key, tuple[str, ...]], list[tuple[ShownCount, int]]] = {}
        self._sayers: dict[_Said, Counter[int]] = {}
        self._left: set[tuple[str, _Said]] = set()
        for each in earlier:
            self._take(each)
        self._sort()

    def add(self, shown: EarlierCounts) -> None:
        """Count these among what was before."""
        self._take(shown)
        self._sort()

    def compare(self, counts: Iterable[ShownCount], dataset_version: str, threshold: int) -> Comparison:
        """Hold the counts of one file, or one task, against all before: a search by halving for each, no pairs."""
        pairs: list[NearCount] = []
        looked_at = contradictions = 0
        for count in counts:
            looked_at += 1
            if (dataset_version, count.said) in self._left:  # (1)
                continue
            same = self._of_group.get((dataset_version, count.column, count.key, count.over), ())
            other = next((found for found in same if found[0].count != count.count), None)
            if other is not None:  # (2)
                contradictions += 1
                pairs.append(self._pair(count, *other, 0, same_group=True))
            else:
                pairs += self._nearest(count, dataset_version, threshold)  # (3)
        pairs.sort(key=lambda pair: (not pair.same_group, pair.difference, pair.here.column, pair.here.key))
        return Comparison(looked_at, contradictions, len(pairs) - contradictions, tuple(pairs[:MAX_PAIRS]))

    def _nearest(self, count: ShownCount, dataset_version: str, threshold: int) -> list[NearCount]:
        span = (count.count - threshold + 1, count.count + threshold - 1)
        sayers = self._sayers.get(count.said, Counter[int]())
        together = {file for file in sayers if self._files[file].dataset_version == dataset_version}
        within = _within(self._numbers, span) - sum(many for file, many in sayers.items() if file not in together)
        within -= sum(_within(self._numbers_of[file], span) for file in together)
        if within <= 0:
            return []
        for number in self._outward(count.count, span):
            for file, found in self._at[number].items():
                other = next((each for each in found if each.said != count.said), None)
                if other is not None and file not in together:
                    return [self._pair(count, other, file, within - 1, same_group=False)]
        return []

    def _outward(self, number: int, span: tuple[int, int]) -> Iterator[int]:
        """The numbers shown within a span, the nearest to `number` first."""
        above = bisect_left(self._different, number)
        below = above - 1
        while True:
            down = self._different[below] if below >= 0 else span[0] - 1
            up = self._different[above] if above < len(self._different) else span[1] + 1
            if down < span[0] and up > span[1]:
                return
            if up > span[1] or (down >= span[0] and number - down <= up - number):
                below -= 1
                yield down
            else:
                above += 1
                yield up

    def _sort(self) -> None:
        self._numbers.sort()
        self._different = sorted(self._at)

    def _take(self, shown: EarlierCounts) -> None:
        file = len(self._files)
        self._files.append(shown)
        for count in shown.counts or ():
            self._sayers.setdefault(count.said, Counter())[file] += 1
            found = self._at.setdefault(count.count, {}).setdefault(file, [])
            if not found or (len(found) == 1 and found[0].said != count.said):
                found.append(count)
            name = (shown.dataset_version, count.column, count.key, count.over)
            group = self._of_group.setdefault(name, [])
            if len(group) < 2 and all(each.count != count.count for each, _ in group):
                group.append((count, file))
            if shown.left:
                self._left.add((shown.dataset_version, count.said))
        self._numbers_of.append(sorted(count.count for count in shown.counts or ()))
        self._numbers += self._numbers_of[file]

    def _pair(self, here: ShownCount, other: ShownCount, file: int, others: int, *, same_group: bool) -> NearCount:
        shown = self._files[file]
        return NearCount(
            here, other, shown.name, shown.run, shown.dataset_version, shown.time, shown.left, others, same_group
        )  # fmt: skip


def _within(numbers: list[int], span: tuple[int, int]) -> int:
    return bisect_right(numbers, span[1]) - bisect_left(numbers, span[0])


_Said = tuple[str, Key, int]
