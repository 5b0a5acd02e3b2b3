"""The demo's last lines, and what was refused, in words: on the terminal, in the report page and in README alike.

Everything here is computed from the plain report (`demo-report.json`), so a stored one gives the same lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap
from typing import Any

from deploy.demo.report import REFUSALS, TOGETHER

_LABEL, _WIDTH = 17, 100


def closing(plain: Mapping[str, Any]) -> list[str]:
    """The last lines but the verdict: what went in, what left, what was learnt, and all of it in one sentence."""
    nodes = plain["nodes"]
    good, published = _sum(nodes, "good_in"), _sum(nodes, "good_published")
    alone = " · ".join(f"{node['kind']} {_auc(node['auc_local_only'])}" for node in nodes)
    rows = {
        "what went in": f"{_sum(nodes, 'studies_in')} studies at {len(nodes)} hospitals",
        "troubles planted": f"{_sum(nodes, 'troubles')}, found {_sum(nodes, 'troubles_found')}; "
        f"good studies lost: {good - published} of {good}",
        "identifiers": f"{_number(plain['planted_identifiers'])} planted, "
        f"{_number(plain['planted_found'])} found in {_number(plain['files_searched'])} files outside the originals",
        "what left": f"{_size(_sum(nodes, 'bytes_out'))}: model updates and counts, no image",
        "alone": f"{alone} (AUC on patients of all three kinds)",
        "together": f"{' → '.join(_auc(each) for each in plain['tested'].get(TOGETHER, []))}, round by round",
        "attacks": f"{len(plain['refusals'])}, refused {sum(plain['refusals'].values())}",
    }
    return [f"{name:<{_LABEL}}{words}" for name, words in rows.items()] + ["", *wrap(sentence(plain), _WIDTH)]


def sentence(plain: Mapping[str, Any]) -> str:
    """All of it in one sentence of numbers."""
    nodes = plain["nodes"]
    best = max((node["auc_local_only"] for node in nodes if node["auc_local_only"] is not None), default=None)
    return (
        f"{_sum(nodes, 'studies_in')} studies went in, {_size(_sum(nodes, 'bytes_out'))} left, "
        f"{_number(plain['planted_found'])} of {_number(plain['planted_identifiers'])} identifiers were found, "
        f"{sum(plain['refusals'].values())} of {len(plain['refusals'])} attacks were refused, and together the "
        f"hospitals reach an AUC of {_auc(plain['auc_together'])} where alone none passes {_auc(best)}."
    )


def refused(plain: Mapping[str, Any]) -> list[str]:
    """One line an attack: who tried, what would have happened, and which record says no."""
    return [
        f"{attack.who}: {record(plain['refusal_evidence'].get(name, {}))}; otherwise {attack.otherwise}"
        for name, attack in REFUSALS.items()
    ]


def record(proof: Mapping[str, Any]) -> str:
    """The proof of a refusal, in words."""
    if "tls_alert" in proof:
        return f"TLS alert {str(proof['tls_alert']).rpartition('ALERT_')[2].replace('_', ' ').lower()}"
    if "audit_sequence" in proof:
        return f"record {proof['audit_sequence']} of {proof['site']}'s audit log says {proof['code']}"
    return str(proof.get("why", "no evidence"))


def _sum(nodes: Any, name: str) -> int:
    return sum(int(node[name]) for node in nodes)


def _auc(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1000:,.0f} kB"
