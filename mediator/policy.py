"""The hospital's own policy: what this hospital lets run, whatever a permit says.

Both must agree, permit and policy, and neither widens the other. Every default denies, so an empty policy denies
everything.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from mediator.analysis import AnalysisRules
from mediator.capacity import SiteSchedule
from mediator.errors import Code, Reason
from mediator.types import Kind, Resources


@dataclass(frozen=True)
class Policy:
    """What the hospital's staff have allowed, from configuration and from their own verbs (pause, approve).

    `images` are approved digests; `resources` is the most one container may ask for; `max_revocation_age` how
    old the committee's newest list may be before everything stops (24 h unless the hospital says otherwise);
    `schedule` the site's GPUs, slots and hours.
    `threshold` and `reviewers` are the fewest patients behind a number, and the fewest persons to agree, whatever a
    permit's rules for analyses say. `epsilon_total` is what all permits together may spend on one dataset.
    """

    paused: bool = True
    kinds: frozenset[Kind] = frozenset()
    images: frozenset[str] = frozenset()
    resources: Resources | None = None
    max_revocation_age: timedelta = timedelta(0)
    schedule: SiteSchedule = field(default_factory=SiteSchedule)
    threshold: int = 0
    reviewers: Literal[1, 2] = 2
    epsilon_total: float = 0.0

    def narrow(self, rules: AnalysisRules) -> AnalysisRules:
        """A permit's rules for analyses as this hospital holds them: a higher threshold, more reviewers, never less."""
        reviewers: Literal[1, 2] = 2 if self.reviewers == 2 else rules.reviewers
        return replace(rules, threshold=max(rules.threshold, self.threshold), reviewers=reviewers)

    def check(self, kind: Kind, image: str, resources: Resources) -> list[Reason]:
        """Why a task of this kind, in this image, asking for this much, may not run here; empty when it may."""
        reasons = []
        if self.paused:
            reasons.append(Reason(Code.HOSPITAL_PAUSED))
        if kind not in self.kinds:
            reasons.append(Reason(Code.KIND_NOT_PERMITTED, f"the hospital's policy does not allow {kind.value}"))
        if image not in self.images:
            reasons.append(Reason(Code.IMAGE_NOT_APPROVED, "the hospital has not approved this image"))
        if self.resources is None:
            reasons.append(Reason(Code.RESOURCES_EXCEEDED, "the hospital's policy sets no ceiling, so nothing fits"))
        elif resources.cpus > self.resources.cpus:
            why = f"the permit asks for {resources.cpus:g} CPUs, and this machine has or lends {self.resources.cpus:g}"
            reasons.append(Reason(Code.RESOURCES_EXCEEDED, why))
        elif not resources.within(self.resources):
            reasons.append(Reason(Code.RESOURCES_EXCEEDED, "the permit's resources exceed the hospital's ceiling"))
        elif not self.schedule.capacity.holds(resources.gpus, resources.gpu_memory_bytes):
            reasons.append(Reason(Code.RESOURCES_EXCEEDED, "the hospital has not so many GPUs of that memory"))
        return reasons

    def check_hours(self, expires: datetime, now: datetime) -> list[Reason]:
        """Why a task good until `expires` cannot compute in the site's hours; empty when it can, or can wait."""
        opens = self.schedule.calendar.opens(now)
        if opens is None or now < opens >= expires:
            return [Reason(Code.OUTSIDE_SCHEDULE, "the site's hours begin after the instruction has expired")]
        return []
