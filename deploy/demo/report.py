"""What the demo measured, as `demo-report.json`, and whether that is good enough to exit 0."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

# The lesion must be learnable and learnt: the generator keeps every single-number statistic of an image below 0.60.
TOGETHER_AT_LEAST = 0.93
ALONE_AT_MOST = 0.80
# Each round must be better than the one before, as the hospitals test it, until what is promised is reached; from there
# on chance may take so much: an AUC over some hundred studies has a standard error of 0.02 (Hanley and McNeil, 1982).
CHANCE = 0.02
TOGETHER = "together"
AUC_UNTRAINED_AT_MOST = 0.65
AUC_OF_STATISTICS_BELOW = 0.60
HELD_OUT_AT_LEAST = 100
PLANTED_AT_LEAST = 300
ROUNDS_AT_LEAST = 3


@dataclass(frozen=True)
class Attack:
    """One attempt of the closing act: what it is called, who makes it, what would happen if it were not refused."""

    title: str
    who: str
    otherwise: str


REFUSALS = {
    "run_without_permit": Attack(
        "a run without a permit",
        "the hub orders a training that no committee permitted",
        "patients' images would serve a purpose nobody agreed to",
    ),
    "hub_without_keys": Attack(
        "a permit forged by the hub",
        "the hub signs a permit and an order with the only key it has",
        "whoever owns the hub would own every hospital's data",
    ),
    "client_without_certificate": Attack(
        "a client without a certificate",
        "a stranger knocks at the hub",
        "anybody could pose as a hospital and poison the model",
    ),
    "replayed_instruction": Attack(
        "an instruction sent twice",
        "the hub sends a genuine, served instruction again",
        "each repeat would draw more out of the same patients than was permitted",
    ),
    "extra_tensor": Attack(
        "an update with a tensor too many",
        "a researcher's container adds a tensor of its own",
        "images could leave, dressed up as weights",
    ),
    "hidden_bytes": Attack(
        "bytes hidden behind a tensor",
        "a researcher's container writes on where its model ends",
        "a name or a scan could ride along unseen",
    ),
}


@dataclass
class Figures:
    """One hospital's figures. `excluded` counts studies by reason; `bytes_out` is what gate 2 released.

    `good_in` studies have nothing wrong with them; `auc_local_only` is the model it trained alone, tested on patients
    of all three kinds, `auc_at_home` the same one on its own.
    """

    name: str
    kind: str = ""
    good_in: int = 0
    good_published: int = 0
    troubles: int = 0
    troubles_found: int = 0
    planted: int = 0
    studies_in: int = 0
    studies_published: int = 0
    instances: int = 0
    excluded: dict[str, int] = field(default_factory=dict)
    dataset_version: str = ""
    held_out: int = 0
    bytes_out: int = 0
    auc_local_only: float | None = None
    auc_at_home: float | None = None
    audit_dir: str = ""
    audit_key: str = ""
    witness_file: str = ""
    audit_ok: bool = False
    audit_records: int = 0
    quarantine_files: int | None = None
    quarantine_destroyed_sequence: int | None = None


@dataclass
class Round:
    """One round: seconds, study-weighted means over the hospitals, and each hospital's own figures."""

    number: int
    seconds: float
    loss: float | None
    auc: float | None
    sites: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass
class Search:
    """The identifier search: what was planted, what was found where it must not be, and that the search works."""

    identifiers_file: str = ""
    roots: list[str] = field(default_factory=list)
    planted: int = 0
    found: int | None = None
    found_in_source: int = 0
    files: int = 0


@dataclass
class Report:
    """Everything the final tables show and the report file holds."""

    rounds_ordered: int
    hospitals: dict[str, Figures]
    rounds: list[Round] = field(default_factory=list)
    search: Search = field(default_factory=Search)
    refusals: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(REFUSALS, False))
    evidence: dict[str, dict[str, object]] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    processor: dict[str, float] = field(default_factory=dict)
    seconds_total: float = 0.0
    hub_ingress: str = ""
    outsider: dict[str, str] = field(default_factory=dict)
    auc_of_statistics: dict[str, float] = field(default_factory=dict)
    tested: dict[str, list[float]] = field(default_factory=dict)
    picture: dict[str, Any] = field(default_factory=dict)
    committee_closed_to_hub: bool | None = None
    separate_users: bool = False

    @property
    def trained(self) -> list[Round]:
        """The rounds after the untrained model's evaluation (round 0)."""
        return [entry for entry in self.rounds if entry.number > 0]

    @property
    def auc_untrained(self) -> float | None:
        return next((entry.auc for entry in self.rounds if entry.number == 0), None)

    @property
    def auc_together(self) -> float | None:
        """The federated model on patients of all three kinds whom no hospital has."""
        return self.tested[TOGETHER][-1] if self.tested.get(TOGETHER) else None

    @property
    def auc_global(self) -> float | None:
        """The aggregated model's AUC after the last round."""
        return self.trained[-1].auc if self.trained else None

    @property
    def seconds_per_round(self) -> float | None:
        """The mean over the trained rounds."""
        if not self.trained:
            return None
        return round(sum(entry.seconds for entry in self.trained) / len(self.trained), 2)

    def plain(self) -> dict[str, Any]:
        """The report file's content."""
        return {
            "seconds_total": round(self.seconds_total, 2),
            "phases": self.phases,
            "processor_seconds": self.processor,
            "rounds": len(self.trained),
            "seconds_per_round": self.seconds_per_round,
            "auc_global": self.auc_global,
            "auc_untrained": self.auc_untrained,
            "auc_together": self.auc_together,
            "tested": self.tested,
            "auc_of_statistics": self.auc_of_statistics,
            "rounds_detail": [dataclasses.asdict(entry) for entry in self.rounds],
            "nodes": [dataclasses.asdict(hospital) for hospital in self.hospitals.values()],
            "refusals": self.refusals,
            "refusal_evidence": self.evidence,
            "identifiers_file": self.search.identifiers_file,
            "search_roots": self.search.roots,
            "planted_identifiers": self.search.planted,
            "planted_found": self.search.found,
            "planted_found_in_source": self.search.found_in_source,
            "files_searched": self.search.files,
            "quarantine_empty": all(hospital.quarantine_files == 0 for hospital in self.hospitals.values()),
            "picture": self.picture,
            "committee_closed_to_hub": self.committee_closed_to_hub,
            "separate_users": self.separate_users,
            "hub_ingress": self.hub_ingress,
            "outsider": self.outsider,
            "failures": self.failures(),
        }

    def failures(self) -> list[str]:
        """Every reason not to exit 0, in words; empty when all is well."""
        checks = [*self._of_learning(), *self._of_all()]
        for each in self.hospitals.values():
            checks += self._of_a_hospital(each)
        checks += [(not self.refusals[name], f"not refused: {attack.title}") for name, attack in REFUSALS.items()]
        return [words for failed, words in checks if failed]

    def _of_learning(self) -> list[tuple[bool, str]]:
        together = self.tested.get(TOGETHER, [])
        at_hospitals, at_home = (
            value is None or value < TOGETHER_AT_LEAST for value in (self.auc_global, self.auc_together)
        )
        above = self.auc_untrained is None or self.auc_untrained > AUC_UNTRAINED_AT_MOST
        heard = [entry.auc or 0.0 for entry in self.rounds]
        falls = [number for number, (one, two) in enumerate(pairwise(heard), 1) if not _better(one, two)]
        return [
            (at_hospitals, f"the hospitals test it at {_number(self.auc_global)}, not {TOGETHER_AT_LEAST} or more"),
            (at_home, f"together is {_number(self.auc_together)} on all, not {TOGETHER_AT_LEAST} or more"),
            (above, f"the untrained AUC is {_number(self.auc_untrained)}, not {AUC_UNTRAINED_AT_MOST} or less"),
            (bool(falls), f"no better than the round before: round {', '.join(map(str, falls))}"),
            (len(together) != self.rounds_ordered + 1, "not every round's model was tested on all"),
            (
                max(self.auc_of_statistics.values(), default=1.0) >= AUC_OF_STATISTICS_BELOW,
                f"mean or variance of an image alone tell a lesion with an AUC of {AUC_OF_STATISTICS_BELOW} or more",
            ),
            (len(self.trained) < self.rounds_ordered, f"only {len(self.trained)} of {self.rounds_ordered} rounds done"),
        ]

    def _of_all(self) -> list[tuple[bool, str]]:
        search = self.search
        return [
            (
                sum(each.held_out for each in self.hospitals.values()) < HELD_OUT_AT_LEAST,
                "fewer than 100 studies kept for testing",
            ),
            (search.found is None, "the identifier search did not run"),
            (bool(search.found), f"{search.found} planted identifiers were found outside source/"),
            (search.found_in_source < search.planted, "the search's positive control missed planted identifiers"),
            (self.committee_closed_to_hub is False, "the hub's process can read the committee's folder"),
        ]

    def _of_a_hospital(self, each: Figures) -> list[tuple[bool, str]]:
        alone, together = each.auc_local_only, self.auc_together
        lost = each.good_in - each.good_published
        return [
            (not each.audit_ok, f"{each.name}: the audit log does not verify"),
            (each.planted < PLANTED_AT_LEAST, f"{each.name}: fewer than {PLANTED_AT_LEAST} identifiers planted"),
            (each.quarantine_files != 0, f"{each.name}: the quarantine is not empty"),
            (each.quarantine_destroyed_sequence is None, f"{each.name}: no audit record of destroyed originals"),
            (each.good_in == 0 or lost != 0, f"{each.name}: {lost} good studies were lost"),
            (
                each.troubles_found < max(each.troubles, 1),
                f"{each.name}: {each.troubles_found} of {each.troubles} planted troubles were found",
            ),
            (alone is None or alone > ALONE_AT_MOST, f"{each.name}: alone it reaches {_number(alone)} on all"),
            (
                alone is None or together is None or together <= alone,
                f"{each.name}: it gains nothing ({_number(alone)} alone, {_number(together)} together)",
            ),
        ]

    def exit_code(self) -> int:
        """0 all is well; 4 a log does not verify or an identifier got out; 1 anything else."""
        broken = self.search.found or any(not each.audit_ok for each in self.hospitals.values())
        return 4 if broken else 1 if self.failures() else 0


def read_rounds(run: dict[str, Any]) -> list[Round]:
    """The rounds in the answer of `cloister hub run show RUN --json`."""
    return [
        Round(
            number=int(entry["round"]),
            seconds=float(entry.get("seconds") or 0.0),
            loss=(entry.get("mean") or {}).get("loss"),
            auc=(entry.get("mean") or {}).get("auc"),
            sites={site: dict(metrics) for site, metrics in (entry.get("evaluate") or {}).items()},
        )
        for entry in run.get("rounds", [])
    ]


def _better(before: float, after: float) -> bool:
    return after > before or (min(before, after) >= TOGETHER_AT_LEAST and before - after < CHANCE)


def absolute(path: Path) -> str:
    return str(path.absolute())


def _number(value: float | None) -> str:
    return "missing" if value is None else f"{value:.3f}"
