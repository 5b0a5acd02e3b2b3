"""How an image differs from an earlier one, and what it is a version of: for people to read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mediator.images import ImageFacts, Package, Setting


def lineage_of(facts: ImageFacts) -> str:
    """What an image is a version of, unless somebody says otherwise: its first name without tag or digest."""
    for name in (*facts.names, facts.parsed.labels.get("org.opencontainers.image.title", "")):
        folder, slash, last = name.partition("@")[0].rpartition("/")
        if bare := last.partition(":")[0]:
            return f"{folder}{slash}{bare}"
    return ""


@dataclass(frozen=True)
class Difference:
    """One thing that two images do not share; `before` or `after` is empty where there is nothing."""

    what: str
    before: str
    after: str


def differences(before: ImageFacts, after: ImageFacts) -> tuple[Difference, ...]:
    """What changed from one image to another, in the order in which a reader would ask."""
    found = list(_configured(before, after))
    listed = {
        "layer": (before.parsed.diff_ids, after.parsed.diff_ids),
        "bill of materials": (_bills(before), _bills(after)),
    }
    for what, (one, other) in listed.items():
        found += [Difference(what, each, "") for each in one if each not in set(other)]
        found += [Difference(what, "", each) for each in other if each not in set(one)]
    found += _changed("package", _versions(before.packages), _versions(after.packages))
    return tuple(found)


def _configured(before: ImageFacts, after: ImageFacts) -> Iterator[Difference]:
    """Every setting that is another: what is compared is what stands there, not what is shown of it. Two texts that
    say the same (in another order, with other blanks) are one difference, for nobody has to believe that they do."""
    old, new = before.parsed.settings, after.parsed.settings
    changed = [name for name in {**old, **new} if _hash(old.get(name)) != _hash(new.get(name))]
    for name in changed:
        one, other = _shown(old.get(name)), _shown(new.get(name))
        if one == other:  # shown alike, and not the same
            one, other = f"{one} sha256:{_hash(old.get(name))}", f"{other} sha256:{_hash(new.get(name))}"
        yield Difference(name, one, other)
    if not changed and before.config != after.config:
        yield Difference("configuration, as it is written", before.image, after.image)


def _shown(setting: Setting | None) -> str:
    return "" if setting is None else setting.shown or '""'


def _hash(setting: Setting | None) -> str:
    return "" if setting is None else setting.sha256


def _bills(facts: ImageFacts) -> tuple[str, ...]:
    return tuple(f"{each.where} {each.sha256}" for each in facts.sboms)


def _versions(packages: Iterable[Package]) -> dict[str, str]:
    found: dict[str, str] = {}
    for package in sorted(packages):  # one name may be there twice: pip beside Debian, two environments
        key = f"{package.kind} {package.name}"
        found[key] = f"{found[key]}, {package.version}" if key in found else package.version
    return found


def _changed(what: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[Difference]:
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield Difference(f"{what} {name}", old.get(name, ""), new.get(name, ""))
