"""How a job's program ended: the codes of exception classes, and how often a run is told more than a plain word."""

from __future__ import annotations

from collections.abc import Mapping

from mediator.errors import EXCEPTIONS, Code, HubCode, hub_code, plain_hub_code, raised_word

OTHER = "other"

# A run that fails this often is mended at home, not here; a hub that asks again and again learns no more from it.
# Every answer counts that follows a job's end, of all attempts, rounds and kinds of task: a plain word is a choice too.
TOLD_PER_RUN = 32

RAISED: Mapping[str, Code] = {name: Code(raised_word(name)) for name in (*EXCEPTIONS, OTHER)}
"""Class name → code. The keeper's list is the same."""

PLAIN = frozenset(plain_hub_code(code) for code in Code) | {HubCode.INTERNAL}
"""The words that say nothing about how a job's program ended."""


def told(code: Code, already: int) -> HubCode:
    """What the hub hears for `code` in a run of which it was told `already` ends of jobs at this site.

    After `TOLD_PER_RUN` of them whatever a job can bring about is one word.
    """
    if already < TOLD_PER_RUN:
        return hub_code(code)
    plain = plain_hub_code(code)
    # an output that is too long is gate 2's reason too, and the job's choice
    by_a_job = plain is HubCode.REFUSED_OUTPUT or code is Code.BYTES_EXHAUSTED
    return HubCode.JOB_FAILED if by_a_job else plain
