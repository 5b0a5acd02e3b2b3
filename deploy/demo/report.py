"""What the demo measured, as `demo-report.json`, and whether that is good enough to exit 0."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# The lesion must be learnable and learnt: the generator keeps every single-number statistic of an image below 0.60.
AUC_GLOBAL_AT_LEAST = 0.80
AUC_UNTRAINED_AT_MOST = 0.65
AUC_OF_STATISTICS_BELOW = 0.60
HELD_OUT_AT_LEAST = 100
PLANTED_AT_LEAST = 300
ROUNDS_AT_LEAST = 3

REFUSALS = {
    "run_without_permit": "a run without a permit",
    "hub_without_keys": "a hub without committee and researcher keys",
    "client_without_certificate": "a client without a certificate",
    "replayed_instruction": "a replayed instruction",
    "extra_tensor": "an update with an extra tensor",
    "hidden_bytes": "bytes hidden behind a tensor",
}


@dataclass
class Figures:
    """One hospital's figures. `excluded` counts studies by reason; `bytes_out` is what gate 2 released."""

    name: str
    planted: int = 0
    studies_in: int = 0
    studies_published: int = 0
    instances: int = 0
    excluded: dict[str, int] = field(default_factory=dict)
    dataset_version: str = ""
    held_out: int = 0
    bytes_out: int = 0
    auc_local_only: float | None = None
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
    seconds_total: float = 0.0
    hub_ingress: str = ""
    outsider: dict[str, str] = field(default_factory=dict)
    auc_of_statistics: dict[str, float] = field(default_factory=dict)
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
            "rounds": len(self.trained),
            "seconds_per_round": self.seconds_per_round,
            "auc_global": self.auc_global,
            "auc_untrained": self.auc_untrained,
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
            "committee_closed_to_hub": self.committee_closed_to_hub,
            "separate_users": self.separate_users,
            "hub_ingress": self.hub_ingress,
            "outsider": self.outsider,
            "failures": self.failures(),
        }

    def failures(self) -> list[str]:
        """Every reason not to exit 0, in words; empty when all is well."""
        hospitals = list(self.hospitals.values())
        search = self.search
        below = self.auc_global is None or self.auc_global < AUC_GLOBAL_AT_LEAST
        above = self.auc_untrained is None or self.auc_untrained > AUC_UNTRAINED_AT_MOST
        checks = [
            (below, f"the federated AUC is {_number(self.auc_global)}, not {AUC_GLOBAL_AT_LEAST} or more"),
            (above, f"the untrained AUC is {_number(self.auc_untrained)}, not {AUC_UNTRAINED_AT_MOST} or less"),
            (
                max(self.auc_of_statistics.values(), default=1.0) >= AUC_OF_STATISTICS_BELOW,
                f"mean or variance of an image alone tell a lesion with an AUC of {AUC_OF_STATISTICS_BELOW} or more",
            ),
            (len(self.trained) < self.rounds_ordered, f"only {len(self.trained)} of {self.rounds_ordered} rounds done"),
            (sum(each.held_out for each in hospitals) < HELD_OUT_AT_LEAST, "fewer than 100 held-out studies in all"),
            (search.found is None, "the identifier search did not run"),
            (bool(search.found), f"{search.found} planted identifiers were found outside source/"),
            (search.found_in_source < search.planted, "the search's positive control missed planted identifiers"),
            (self.committee_closed_to_hub is False, "the hub's process can read the committee's folder"),
        ]
        for each in hospitals:
            checks += [
                (not each.audit_ok, f"{each.name}: the audit log does not verify"),
                (each.planted < PLANTED_AT_LEAST, f"{each.name}: fewer than {PLANTED_AT_LEAST} identifiers planted"),
                (each.quarantine_files != 0, f"{each.name}: the quarantine is not empty"),
                (each.quarantine_destroyed_sequence is None, f"{each.name}: no audit record of destroyed originals"),
                (each.auc_local_only is None, f"{each.name}: the local-only run gave no AUC"),
            ]
        checks += [(not self.refusals[name], f"not refused: {title}") for name, title in REFUSALS.items()]
        return [words for failed, words in checks if failed]

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


def absolute(path: Path) -> str:
    return str(path.absolute())


def _number(value: float | None) -> str:
    return "missing" if value is None else f"{value:.3f}"
