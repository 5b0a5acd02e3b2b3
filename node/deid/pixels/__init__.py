"""Pixels: what is drawn into them is found, blacked out or held back.

    with PixelGate() as gate:
        for verdict in gate.examine([Instance(path, facts), …]):  # one series, files gate 0 wrote

`needs_check(facts)` says beforehand whether a file must be looked at. The use case writes first, asks here next, and
only then moves a file to where others see it: CLEAN and BLACKED_OUT to the output, REVIEW to review.
"""

from node.deid.pixels.gate import PixelGate
from node.deid.pixels.values import Instance, PixelFinding, PixelState, PixelVerdict, Region, is_text_risk, needs_check

__all__ = [
    "Instance",
    "PixelFinding",
    "PixelGate",
    "PixelState",
    "PixelVerdict",
    "Region",
    "is_text_risk",
    "needs_check",
]
