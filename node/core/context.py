"""What the use cases of core share: the store, the clock, the keys, the rings of trust, the seams to the outside."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

from durable.reading_group import EVERYBODY, ReadingGroup
from mediator.audit import Action, Verdict
from mediator.capacity import SiteSchedule
from mediator.errors import Code, Denied, Malformed
from mediator.permit import open_revocations
from mediator.policy import Policy
from mediator.ports import Clock, UpdateCodec
from mediator.revocations import Revocations, newest, overheard
from mediator.signatures import KeyRing, Signed, SigningKey
from mediator.types import Kind, Resources, RevocationList
from node.core.deferred_records import DeferredRecords
from node.core.records import AuditEvent
from node.core.refusals import Refusals
from node.core.reserve import Reserve
from node.core.store.reads import Reads
from node.core.store.store import Store
from node.core.switch import Switch

# the actor of what the node does by itself; people are named by their role
CORE = "core"


@dataclass(frozen=True)
class Folders:
    """Core's own folders. `jobs` keeps a task's model and output until it is released, `releases` what was released
    until its run ends, `spool` what the link may read, `datasets` the published versions, `work` the containers'."""

    jobs: Path
    releases: Path
    spool: Path
    datasets: Path
    handover: Path
    work: Path


@dataclass(frozen=True)
class Trust:
    """Whose signatures count, each ring for one purpose."""

    committee: KeyRing
    stewards: KeyRing
    hub: KeyRing
    witnesses: KeyRing


@dataclass(frozen=True)
class CoreKeys:
    """Core's private keys: the log's, the release envelopes', the container specs'."""

    audit: SigningKey = field(repr=False)
    release: SigningKey = field(repr=False)
    verdict: SigningKey = field(repr=False)


@dataclass(frozen=True)
class AirlockSettings:
    """What the hospital has decided about its airlock: who reviews (`subjects` has a name for each key id of `ring`),
    the floors under every permit's rules, when a waiting file is called overdue, and when it is deleted."""

    ring: KeyRing = field(default_factory=KeyRing)
    subjects: Mapping[str, str] = field(default_factory=dict)
    threshold: int = 10
    reviewers: Literal[1, 2] = 1
    remind: timedelta = timedelta(days=2)
    expire: timedelta = timedelta(days=14)


@dataclass(frozen=True)
class PrivacySettings:
    """The most epsilon, at `delta`, that all permits together may spend on one dataset (a name, all its versions)."""

    epsilon_total: float = 10.0
    delta: float = 1e-6


@dataclass
class Heard:
    """What the revocation lists that came in have revoked, whether the store has taken them or not."""

    revocations: Revocations | None = None


@dataclass(frozen=True)
class Core:
    """One node's core. `random_bytes` is a cryptographic source (gate 2's noise).

    `datasets_lock` is held by who makes studies and versions, until they are on record, and by who removes them;
    `counts_lock` by who holds counts against those that left, until the new ones are on record too.
    `job_group` may read what jobs are shown. `switch`, `heard` and `deferred` are what a stop rests on while the store
    answers nobody.
    """

    site: str
    store: Store
    clock: Clock
    keys: CoreKeys
    trust: Trust
    folders: Folders
    ceiling: Resources
    schedule: SiteSchedule
    max_revocation_age: timedelta
    codec: UpdateCodec
    random_bytes: Callable[[int], bytes]
    deferred: DeferredRecords
    airlock: AirlockSettings = field(default_factory=AirlockSettings)
    job_group: ReadingGroup = EVERYBODY
    privacy: PrivacySettings = field(default_factory=PrivacySettings)
    switch: Switch = field(default_factory=Switch)
    heard: Heard = field(default_factory=Heard)
    refusals: Refusals = field(default_factory=Refusals)
    reserve: Reserve = field(default_factory=Reserve)
    datasets_lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    counts_lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def paused(self, snapshot: Reads) -> bool:
        """Whether the hospital has paused its node."""
        return self.switch.on or snapshot.paused()

    def revocations(self, snapshot: Reads) -> Revocations | None:
        """All that is revoked, by the lists that are stored and those heard. A stored list that no longer opens counts
        as missing."""
        row = snapshot.newest_revocation_list()
        if row is not None:
            try:
                open_revocations(row.text, self.trust.committee)
            except (Denied, Malformed):
                row = None
        return newest(None if row is None else row.revocations, self.heard.revocations)

    def hear(self, signed: Signed[RevocationList]) -> bool:
        """Hold to a revocation list from now on. False where one with its number, or a higher one, was heard before."""
        heard = self.heard.revocations
        if heard is not None and heard.number >= signed.document.number:
            return False
        self.heard.revocations = overheard(heard, signed)
        return True

    def policy(self, snapshot: Reads) -> Policy:
        """The hospital's policy as it stands in this snapshot."""
        return Policy(
            paused=self.paused(snapshot),
            kinds=frozenset(Kind),
            images=snapshot.approved_images(),
            resources=self.ceiling,
            max_revocation_age=self.max_revocation_age,
            schedule=self.schedule,
            threshold=self.airlock.threshold,
            reviewers=self.airlock.reviewers,
            epsilon_total=self.privacy.epsilon_total,
        )


def event(
    action: Action, about: str, verdict: Verdict, *, permit: str = "", code: Code | None = None, actor: str = CORE
) -> AuditEvent:
    """An audit event; `about` is one of our own ids."""
    return AuditEvent(actor=actor, action=action, object=about, verdict=verdict, permit=permit, code=code)


def permit_name(permit: str, permit_version: int) -> str:
    """A permit as audit records name it."""
    return f"{permit}@{permit_version}"
