"""How an image differs from an earlier one, and what it is a version of: for people to read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mediator.images import ImageFacts, Package


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
    old, new = before.parsed, after.parsed
    single = {
        "entry point": (" ".join(old.entrypoint), " ".join(new.entrypoint)),
        "command": (" ".join(old.command), " ".join(new.command)),
        "user": (old.user, new.user),
        "folder": (old.folder, new.folder),
        "platform": (f"{old.system}/{old.architecture}", f"{new.system}/{new.architecture}"),
    }
    found = [Difference(what, *pair) for what, pair in single.items() if pair[0] != pair[1]]
    listed = {
        "environment": (old.env, new.env),
        "volume": (old.volumes, new.volumes),
        "layer": (old.diff_ids, new.diff_ids),
        "bill of materials": (_bills(before), _bills(after)),
    }
    for what, (one, other) in listed.items():
        found += [Difference(what, each, "") for each in one if each not in set(other)]
        found += [Difference(what, "", each) for each in other if each not in set(one)]
    found += _changed("label", old.labels, new.labels)
    found += _changed("package", _versions(before.packages), _versions(after.packages))
    return tuple(found)


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
