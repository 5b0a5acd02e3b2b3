"""Who issued a patient's id, as the files of a study say it: one that does not say is of the same patient.

A scanner writes the issuer, the workstation that drew a segmentation does not. Two patients would come of it, with two
shifts of dates inside one study. Where files of a study say two issuers, nobody knows which of them is meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mediator.deid.pseudonyms import normalise


class Issuers:
    """Issuers by study and by the id alone, in whatever form both are known."""

    def __init__(self, known: Iterable[tuple[str, str, str]] = ()) -> None:
        self._said: dict[tuple[str, str], dict[str, str]] = {}
        for study, patient, issuer in known:
            self.add(study, patient, issuer)

    def __bool__(self) -> bool:
        return bool(self._said)

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        return ((*key, issuer) for key, several in self._said.items() for issuer in several.values())

    def add(self, study: str, patient: str, issuer: str) -> None:
        self._said.setdefault((study, patient), {})[normalise("", issuer)] = issuer

    def of(self, study: str, patient: str) -> str:
        """The one issuer; "" where none is said, or two are."""
        several = self._said.get((study, patient), {})
        return next(iter(several.values())) if len(several) == 1 else ""
