"""Metrics: a handful of named numbers, each with its range and its digits. Anything else stays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mediator import canonical, grammar
from mediator.disclosure import ShownCount, releasable
from mediator.errors import Code, Denied, Malformed, Reason
from mediator.sizes import MAX_METRICS_BYTES
from mediator.types import Kind, MetricSpec


def parse(raw: bytes, specs: Sequence[MetricSpec], count_threshold: int) -> dict[str, float | int]:
    """The metrics in `raw`, rounded to the permit's digits, in order of name. Raises `Denied` with every reason.

    1. At most `MAX_METRICS_BYTES`.
    2. UTF-8 JSON, one object, no duplicate keys, no NaN or infinity.
    3. Exactly the permit's names.
    4. Values are finite numbers, counts are whole numbers; no booleans, strings, lists.
    5. In the permit's range.
    6. A count is at or above the permit's threshold.
    7. Values are rounded to the permit's digits; −0.0 is 0.0.
    """
    members = _members(raw)
    names = {spec.name for spec in specs}
    reasons = [Reason(Code.METRIC_MISSING, spec.name) for spec in specs if spec.name not in members]  # (3)
    if unknown := len(members.keys() - names):
        reasons.append(Reason(Code.METRIC_NOT_PERMITTED, f"{unknown} that the permit does not name"))
    metrics: dict[str, float | int] = {}
    for spec in sorted(specs, key=lambda item: item.name):
        if spec.name in members:
            value = members[spec.name]
            if reason := _refusal(value, spec, count_threshold):
                reasons.append(reason)
            else:
                # (7) adding 0.0 turns the −0.0 that rounding can leave into 0.0
                metrics[spec.name] = value if spec.kind == "count" else round(float(value), spec.digits) + 0.0
    if reasons:
        raise Denied(reasons)
    return metrics


def fixed(specs: Sequence[MetricSpec]) -> dict[str, float | int]:
    """The metrics under a privacy budget, in order of name: the permit's own values, whatever the job has written.

    Raises `Denied` where a job would have a choice (`compile_permit` refuses such a permit).
    """
    ordered = sorted(specs, key=lambda item: item.name)
    if chosen := [spec.name for spec in ordered if spec.fixed is None]:
        raise Denied(Reason(Code.METRIC_UNPROTECTED, chosen[0]))
    return {spec.name: spec.fixed for spec in ordered if spec.fixed is not None}


def encode(metrics: Mapping[str, float | int]) -> bytes:
    """Canonical JSON of released metrics."""
    return canonical.dumps(dict(metrics))


def counted(metrics: Mapping[str, float | int], specs: Sequence[MetricSpec], task: Kind) -> tuple[ShownCount, ...]:
    """The counts among released metrics, but for those that the permit itself says. A column's name has no dot, so that
    none is taken for a table's."""
    counts = {spec.name for spec in specs if spec.kind == "count" and spec.fixed is None}
    return tuple(
        ShownCount(f"{task.value}.{name}", (), int(number)) for name, number in metrics.items() if name in counts
    )


def _members(raw: bytes) -> dict[str, Any]:
    if len(raw) > MAX_METRICS_BYTES:  # (1)
        raise Denied(Reason(Code.METRICS_TOO_LARGE, f"over {MAX_METRICS_BYTES} bytes"))
    try:  # (2)
        members = canonical.loads_foreign(raw)
    except Malformed as error:
        raise Denied(Reason(Code.METRICS_MALFORMED, error.message)) from error
    if not isinstance(members, dict):
        raise Denied(Reason(Code.METRICS_MALFORMED, "not one JSON object"))
    return members


def _refusal(value: Any, spec: MetricSpec, count_threshold: int) -> Reason | None:
    if type(value) not in ((int,) if spec.kind == "count" else (int, float)):  # (4)
        kind = "a whole number" if spec.kind == "count" else "a number"
        return Reason(Code.METRICS_MALFORMED, f"{spec.name} is not {kind}")
    if isinstance(value, int) and abs(value) > grammar.MAX_INTEGER:
        return Reason(Code.METRIC_OUT_OF_RANGE, f"{spec.name} has no exact print")
    if not math.isfinite(value):  # 1e999 is JSON, and infinity
        return Reason(Code.METRIC_OUT_OF_RANGE, f"{spec.name} is not finite")
    if not spec.minimum <= value <= spec.maximum:  # (5)
        return Reason(Code.METRIC_OUT_OF_RANGE, f"{spec.name} is not in {spec.minimum:g} to {spec.maximum:g}")
    if spec.kind == "count" and not releasable(value, count_threshold):  # (6)
        return Reason(Code.COUNT_BELOW_THRESHOLD, f"{spec.name} is below {count_threshold}")
    return None
