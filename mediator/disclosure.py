"""Small counts: "one patient under 30 with this tumour" is a person, not a statistic.

A count below the threshold does not leave, zero included: that nobody is in a cell says something about
everybody who might have been.
"""

from __future__ import annotations


def releasable(count: int, threshold: int) -> bool:
    """Whether a count may leave. A threshold below 1 is nobody's rule and releases nothing."""
    return threshold >= 1 and count >= threshold
