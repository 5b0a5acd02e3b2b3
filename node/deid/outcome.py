"""What gate 0 says of one instance: where it may go, why not, and whose it is in pseudonyms alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mediator.deid.identifiers import Lost
from mediator.deid.screening import Exclusion, Facts, Note

Place = Literal["pass", "review", "refuse"]


@dataclass(frozen=True)
class Identity:
    """Whose an instance is, and where it stands. Everything is a pseudonym; "" is what nobody knows.

    `study` names the study's folder and stands in manifests; `study_uid`, `series` and `instance` are UIDs.
    `patient_alone` leaves the issuer out, as clinical tables do.
    """

    patient: str = ""
    patient_alone: str = ""
    study: str = ""
    study_uid: str = ""
    series: str = ""
    instance: str = ""
    series_number: int = 0
    instance_number: int = 0

    @property
    def keys(self) -> tuple[str, ...]:
        """What files that belong together share: the patient, the study. () while nobody says whose it is."""
        return (self.patient, self.study_uid) if self.patient else ()

    @property
    def position(self) -> tuple[str, int, int, str]:
        """The series, its number, the instance's number and UID: the order of a study's files is theirs."""
        return self.series, self.series_number, self.instance_number, self.instance


NOBODY = Identity()


@dataclass(frozen=True)
class GateOutcome:
    """What became of one instance. A file stands at `path` exactly when `place` is not refuse.

    `facts` are the original's, for whoever reads pixels; `lost` is what it was the first of its patient's files to
    lose. Neither is ever shown. `missed` counts by keyword what the profile means to keep and could not; `notes` say
    how it was read; `doubtful`: a decoder must say that its pixel value holds no more than its pictures.
    """

    place: Place
    reasons: tuple[Exclusion, ...] = ()
    path: Path | None = None
    identity: Identity = NOBODY
    facts: Facts = field(default=Facts(), repr=False)
    pardoned: int = 0
    lost: tuple[Lost, ...] = field(default=(), repr=False)
    missed: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    doubtful: bool = False
