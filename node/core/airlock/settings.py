"""The airlock's part of the configuration, as its use cases want it."""

from __future__ import annotations

from datetime import timedelta

from mediator.signatures import KeyRing, VerifyKey
from node.core.context import AirlockSettings
from node.host.config import AirlockConfig as Section


def settings(section: Section) -> AirlockSettings:
    """The persons who review and what their review is worth."""
    return AirlockSettings(
        ring=KeyRing(VerifyKey.from_text(person.public_key) for person in section.persons),
        subjects={VerifyKey.from_text(person.public_key).key_id: person.subject for person in section.persons},
        threshold=section.threshold,
        # two where the configuration says so; otherwise what a permit says
        reviewers=section.reviewers,
        remind=timedelta(seconds=section.remind_s),
        expire=timedelta(seconds=section.expire_s),
    )
