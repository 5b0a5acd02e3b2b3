"""Small counts: "one patient under 30 with this tumour" is a person, not a statistic.

A count below the threshold does not leave, zero included: that nobody is in a cell says something about
everybody who might have been.
"""

from __future__ import annotations

from collections.abc import Mapping


def releasable(count: int, threshold: int) -> bool:
    """Whether a count may leave. A threshold below 1 is nobody's rule and releases nothing."""
    return threshold >= 1 and count >= threshold


def suppress(count: int, threshold: int) -> int | None:
    """The count, or None in its place."""
    return count if releasable(count, threshold) else None


def suppress_table(cells: Mapping[str, int], threshold: int) -> dict[str, int | None]:
    """The cells of one table whose total is known, small ones replaced by None.

    Where exactly one cell is hidden, the total gives it away: then the smallest of the others is hidden too
    (complementary suppression).
    """
    shown = {name: suppress(count, threshold) for name, count in cells.items()}
    hidden = [name for name, count in shown.items() if count is None]
    if len(hidden) == 1 and len(cells) > 1:
        others = (name for name in cells if name not in hidden)
        shown[min(others, key=lambda name: (cells[name], name))] = None
    return shown
