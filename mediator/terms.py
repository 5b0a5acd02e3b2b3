"""The terms of a permit: whether anybody could keep them, and whether a run order keeps to them.

The same questions before somebody signs and after: the Access Committee asks `ungrantable` of its draft, a researcher
`unorderable` of an order, the hub `outside` and `unaddressed` of an order that comes in, and gate 1 `outside`, against
the permit as its hospital enforces it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from mediator import canonical
from mediator.analysis import LOCAL
from mediator.errors import Code, Malformed, Reason
from mediator.permit import person_keys, schema_sha256, unenforceable
from mediator.sizes import reserve_bytes
from mediator.types import ConfigField, DataPermit, Kind, RunOrder

# Learning rates and epochs fit many times over; code does not. (DESIGN: a hub must not ship code that way.)
MAX_CONFIG_BYTES = 4096
# How a hub here aggregates; an order for one hospital alone says `LOCAL` instead.
STRATEGIES = frozenset({"fedavg"})
# The count that a hub weighs a site's numbers by: a reply without it is dropped.
WEIGHT = "num-examples"
_FEDERATED = (Kind.TRAIN, Kind.EVALUATE)
# What the templates of `cloister job new` and the examples of configurations leave to be filled in; and zeros, which no
# hash and no key of anybody is.
_TO_FILL_IN = ("say here", "your-", "your ", "example-")
# RFC 2606 section 3: nobody's hosts
_EXAMPLE_HOSTS = (".example.org", ".example.com", ".example.net")


def is_placeholder(text: str) -> bool:
    """Whether a text still waits for somebody to fill it in: nothing, zeros alone, or a template's own words."""
    digits = text.removeprefix("sha256:")
    return not digits.strip() or not digits.strip("0") or text.startswith(_TO_FILL_IN)


def is_example_host(host: str) -> bool:
    """Whether a host is one that stands in examples alone."""
    return f".{host.lower()}".endswith(_EXAMPLE_HOSTS)


# --- a permit -----------------------------------------------------------------------------------------------


def ungrantable(permit: DataPermit, key_id: str, now: datetime) -> list[Reason]:
    """Why the committee's key `key_id` should not sign a permit at `now`: nobody could open it, or run under it.

    1. Its issuer is the key that signs it: whoever opens it refuses any other.
    2. Nothing in it is a placeholder: no image, version, key, person, purpose or legal basis.
    3. It has not expired.
    4. It names somebody and something: persons, kinds of task, images, sites, each with a dataset version of its own.
       Whether such a site is enrolled and holds the version is for the hub and the site to say: the committee's machine
       knows neither.
    5. Its budgets let one round through, and what is trained or evaluated has tensors, and a count to be weighed by.
    6. Every condition is one that a node can hold itself to (`unenforceable`).
    """
    reasons = []
    if permit.issuer != key_id:  # (1)
        reasons.append(Reason(Code.UNTRUSTED_KEY, f"issuer is not the id of the key that signs, {key_id}"))
    reasons += [Reason(Code.MALFORMED, f"{where} is a placeholder") for where in _placeholders(permit)]  # (2)
    if now >= permit.expires:  # (3)
        reasons.append(Reason(Code.PERMIT_EXPIRED, f"expired {canonical.print_time(permit.expires)}"))
    for where, named in (
        ("persons", permit.persons), ("kinds", permit.kinds), ("images", permit.images), ("datasets", permit.datasets)
    ):  # fmt: skip  # (4)
        if not named:
            reasons.append(Reason(Code.MALFORMED, f"{where} is empty"))
    reasons += _datasets(permit)
    return reasons + _never_runs(permit) + unenforceable(permit)  # (5), (6)


def _placeholders(permit: DataPermit) -> Iterable[str]:
    """Where in a permit something still has to be filled in."""
    texts: list[tuple[str, str]] = [
        (name, getattr(permit, name)) for name in ("issuer", "purpose", "legal_basis", "project")
    ]
    for number, person in enumerate(permit.persons, 1):
        texts += [(f"{name} of person {number}", getattr(person, name)) for name in person.__dataclass_fields__]
    texts += [(f"image {number}", image) for number, image in enumerate(permit.images, 1)]
    texts += [(f"the name of site {number}", entry.site) for number, entry in enumerate(permit.datasets, 1)]
    texts += [(f"a version of {entry.site}", version) for entry in permit.datasets for version in entry.versions]
    return (where for where, text in texts if is_placeholder(text))


def _datasets(permit: DataPermit) -> list[Reason]:
    """A version's id is the root over its files, which hold pseudonyms of one site: two sites never share one."""
    reasons = [
        Reason(Code.DATASET_MISSING, f"{entry.site} has no version") for entry in permit.datasets if not entry.versions
    ]
    counted = Counter(version for entry in permit.datasets for version in entry.versions if not is_placeholder(version))
    if twice := [version for version, times in counted.items() if times > 1]:
        reasons.append(Reason(Code.DOCUMENT_CONFLICT, f"version {twice[0]} is named twice"))
    return reasons


def _never_runs(permit: DataPermit) -> list[Reason]:
    """Budgets and schemas under which gate 1 or the hub would refuse every task there could be."""
    reasons = []
    federated = [kind for kind in _FEDERATED if kind in permit.kinds]
    if federated and not permit.tensors:
        reasons.append(Reason(Code.TENSOR_MISSING, "tensors is empty, and a model is trained or evaluated"))
    for kind in federated:
        if all((metric.name, metric.kind) != (WEIGHT, "count") for metric in permit.metrics.get(kind.value, ())):
            reasons.append(Reason(Code.METRIC_MISSING, f"{kind.value} has no count {WEIGHT}, by which a hub weighs"))
    if permit.maximum_rounds < 1:
        reasons.append(Reason(Code.ROUNDS_EXHAUSTED, "maximum_rounds lets no round through"))
    sizes = [reserve_bytes(permit.tensors, kind) for kind in federated]
    sizes += [permit.analysis.size_bytes] if permit.analysis is not None else []
    if permit.byte_budget < max(sizes, default=0):
        reasons.append(Reason(Code.BYTES_EXHAUSTED, f"byte_budget is under {max(sizes)}, what one task may weigh"))
    return reasons


# --- a run order --------------------------------------------------------------------------------------------


def unorderable(order: RunOrder, permit: DataPermit, key_id: str, now: datetime) -> list[Reason]:
    """Why a researcher's key `key_id` should not sign this order at `now`: the hub or every site would refuse it.

    1. The permit names the key.
    2. The order keeps to the permit (`outside`), and to the sites it covers (`unaddressed`).
    3. Order and permit hold at some moment from now on.
    """
    reasons = []
    if key_id not in person_keys(permit):  # (1)
        reasons.append(Reason(Code.PERSON_NOT_NAMED, "the permit does not name the key that signs the order"))
    reasons += outside(order, permit) + unaddressed(order, permit)  # (2)
    if now >= permit.expires:  # (3)
        reasons.append(Reason(Code.PERMIT_EXPIRED, f"expired {canonical.print_time(permit.expires)}"))
    elif order.expires <= now:
        reasons.append(Reason(Code.RUN_ORDER_EXPIRED, f"expired {canonical.print_time(order.expires)}"))
    elif order.expires <= permit.not_before:
        begins = canonical.print_time(permit.not_before)
        reasons.append(Reason(Code.RUN_ORDER_EXPIRED, f"the order is over before the permit begins, {begins}"))
    return reasons


def outside(order: RunOrder, terms: DataPermit) -> list[Reason]:
    """Where a run order asks for what a permit does not grant: another permit, model, image, round or configuration."""
    reasons = []
    if (order.permit, order.permit_version) != (terms.permit, terms.permit_version):
        reasons.append(Reason(Code.RUN_ORDER_MISMATCH, "for another permit or version"))
    if order.schema_sha256 != schema_sha256(terms.tensors):
        reasons.append(Reason(Code.RUN_ORDER_MISMATCH, "for another tensor schema"))
    if order.image not in terms.images:
        reasons.append(Reason(Code.IMAGE_NOT_PERMITTED, "the permit does not name this image"))
    if order.rounds > terms.maximum_rounds:
        reasons.append(Reason(Code.ROUNDS_EXHAUSTED, f"more than {terms.maximum_rounds} rounds"))
    return reasons + check_config(terms.config, order.config)


def unaddressed(order: RunOrder, permit: DataPermit) -> list[Reason]:
    """Why nobody would carry an order out: no site, one without data, a strategy or a kind of task nobody has."""
    reasons = []
    if not order.sites or len(set(order.sites)) != len(order.sites):
        reasons.append(Reason(Code.RUN_ORDER_MISMATCH, "an order names its sites, each once"))
    if strangers := sorted({site for site in order.sites if not permit.versions_of(site)}):
        reasons.append(Reason(Code.SITE_NOT_NAMED, f"the permit covers no data of {', '.join(strangers)}"))
    if order.strategy == LOCAL:
        if order.rounds != 1:
            reasons.append(Reason(Code.RUN_ORDER_MISMATCH, "an analysis has one round"))
    elif order.strategy not in STRATEGIES:
        known = ", ".join(sorted(STRATEGIES | {LOCAL}))
        reasons.append(Reason(Code.RUN_ORDER_MISMATCH, f"the strategy is not one of {known}"))
    wanted = (Kind.ANALYSE,) if order.strategy == LOCAL else _FEDERATED
    if lacking := [kind.value for kind in wanted if kind not in permit.kinds]:
        reasons.append(Reason(Code.KIND_NOT_PERMITTED, f"the permit does not allow {', '.join(lacking)}"))
    return reasons


def check_config(fields: Iterable[ConfigField], config: Mapping[str, Any]) -> list[Reason]:
    """Why a configuration may not enter a container; empty when it may.

    At most `MAX_CONFIG_BYTES` in canonical form, only keys the permit has, numbers in range, strings from the list.
    """
    try:
        size_bytes = len(canonical.dumps(dict(config)))
    except Malformed:
        return [Reason(Code.CONFIG_NOT_PERMITTED, "no canonical form")]
    if size_bytes > MAX_CONFIG_BYTES:
        return [Reason(Code.CONFIG_NOT_PERMITTED, f"over {MAX_CONFIG_BYTES} bytes")]
    permitted = {entry.name: entry for entry in fields}
    reasons = []
    if unknown := len(config.keys() - permitted.keys()):
        reasons.append(Reason(Code.CONFIG_NOT_PERMITTED, f"{unknown} keys that the permit does not name"))
    for name, entry in permitted.items():
        if name in config and not _fits(config[name], entry):
            reasons.append(Reason(Code.CONFIG_NOT_PERMITTED, f"{name} is not what the permit allows"))
    return reasons


def _fits(value: Any, entry: ConfigField) -> bool:
    if entry.type == "str":
        return type(value) is str and value in entry.choices
    if entry.type == "bool":
        return type(value) is bool
    if type(value) is not int and not (entry.type == "float" and type(value) is float):
        return False
    assert entry.minimum is not None and entry.maximum is not None  # ConfigField's own rule
    return bool(entry.minimum <= value <= entry.maximum)
