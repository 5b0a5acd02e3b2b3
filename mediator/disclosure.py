"""Small counts: "one patient under 30 with this tumour" is a person, not a statistic; nor is the difference of two.

A count below the threshold does not leave, zero included: that nobody is in a cell says something about
everybody who might have been. What left under a permit is remembered, and new counts are held against it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable
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
    """A count as a table or a task's metrics show it: of which column, of which group."""

    column: str
    key: Key
    count: int


@dataclass(frozen=True)
class EarlierCounts:
    """What one file or one round shows. `left`: it is outside, or people have let it; else it may still be kept in.

    `counts` is None where it left before counts were kept. `time` is None for another file of the same analysis.
    """

    name: str
    run: str
    dataset_version: str
    time: datetime | None
    left: bool
    counts: tuple[ShownCount, ...] | None


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

    1. Two counts of one column and group, of one dataset version, are the same number, or one is wrong.
    2. Two counts that differ by less than the threshold are a person's to judge, equal ones too: the threshold holds
       for nobody as for one. Not the same count of the same group shown again.
    3. A count that has left for this dataset version tells nothing new, and is not judged again.

    Counts of two splits of one dataset version are of different patients, because the node, not the job, chooses what
    a task sees: the caller leaves those of the other split out.
    """

    def __init__(self, earlier: Iterable[EarlierCounts]) -> None:
        self._numbers: list[int] = []
        # two of different groups answer every question: a count is of one of them at most
        self._at: dict[int, list[_Found]] = {}
        self._of_group: dict[tuple[str, str, Key], list[_Found]] = {}
        self._times: Counter[ShownCount] = Counter()
        self._left: set[tuple[str, ShownCount]] = set()
        for each in earlier:
            self._take(each)
        self._numbers.sort()

    def add(self, shown: EarlierCounts) -> None:
        """Count these among what was before."""
        self._take(shown)
        self._numbers.sort()

    def compare(self, counts: Iterable[ShownCount], dataset_version: str, threshold: int) -> Comparison:
        """Hold the counts of one file, or one task, against all before. Linear in both but for a search by halving."""
        pairs: list[NearCount] = []
        looked_at = contradictions = 0
        for count in counts:
            looked_at += 1
            same = self._of_group.get((dataset_version, count.column, count.key), ())
            other = next((found for found in same if found[0].count != count.count), None)
            if other is not None:  # (1)
                contradictions += 1
                pairs.append(_pair(count, other, 0, same_group=True))
            elif (dataset_version, count) not in self._left:  # (3)
                pairs += self._nearest(count, threshold)  # (2)
        pairs.sort(key=lambda pair: (not pair.same_group, pair.difference, pair.here.column, pair.here.key))
        return Comparison(looked_at, contradictions, len(pairs) - contradictions, tuple(pairs[:MAX_PAIRS]))

    def _nearest(self, count: ShownCount, threshold: int) -> list[NearCount]:
        low = bisect_left(self._numbers, count.count - threshold + 1)
        high = bisect_right(self._numbers, count.count + threshold - 1)
        within = high - low - self._times[count]
        if within <= 0:
            return []
        below, above = bisect_left(self._numbers, count.count) - 1, bisect_right(self._numbers, count.count)
        near = [found for found in self._at.get(count.count, ()) if not _same_group(found[0], count)]
        near += [self._at[self._numbers[at]][0] for at in (below, above) if low <= at < high]
        closest = min(near, key=lambda found: abs(found[0].count - count.count))
        return [_pair(count, closest, within - 1, same_group=False)]

    def _take(self, shown: EarlierCounts) -> None:
        for count in shown.counts or ():
            self._numbers.append(count.count)
            self._times[count] += 1
            self._keep(self._at.setdefault(count.count, []), (count, shown))
            group = self._of_group.setdefault((shown.dataset_version, count.column, count.key), [])
            if len(group) < 2 and all(found[0].count != count.count for found in group):
                group.append((count, shown))
            if shown.left:
                self._left.add((shown.dataset_version, count))

    @staticmethod
    def _keep(found: list[_Found], new: _Found) -> None:
        if not found or (len(found) == 1 and not _same_group(found[0][0], new[0])):
            found.append(new)


_Found = tuple[ShownCount, EarlierCounts]


def _same_group(one: ShownCount, other: ShownCount) -> bool:
    return (one.column, one.key) == (other.column, other.key)


def _pair(here: ShownCount, found: _Found, others: int, *, same_group: bool) -> NearCount:
    earlier, shown = found
    return NearCount(
        here, earlier, shown.name, shown.run, shown.dataset_version, shown.time, shown.left, others, same_group
    )  # fmt: skip
