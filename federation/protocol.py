"""The version of what a node's link and its hub say to each other, and which versions understand each other.

Counted in whole numbers, one more whenever a release says something that the release before would not understand. A
node and a hub one apart work together, whichever is older, so that no day has to be agreed on which all upgrade.
"""

from __future__ import annotations

# 1: 0.1, which did not say its version. 2: 0.2, which does.
PROTOCOL = 2
HEADER = "cloister-protocol"
