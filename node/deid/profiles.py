"""Profiles and tables out of the installed package: the one place that opens gate 0's data files."""

from __future__ import annotations

from functools import cache
from importlib import resources

from mediator.deid.profile import compile_profile, parse
from mediator.deid.rules import Table
from mediator.deid.tables import TABLE_FILES, Standard, parse_standard
from mediator.errors import UsageFault


@cache
def standard() -> Standard:
    """The standard's tables, read once per process."""
    folder = resources.files("mediator.deid") / "tables"
    return parse_standard(**{key: (folder / name).read_text("utf-8") for key, name in TABLE_FILES.items()})


def profile_names() -> tuple[str, ...]:
    """The profiles that come with the package."""
    folder = resources.files("mediator.deid") / "profiles"
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


@cache
def load_profile(name: str) -> Table:
    """A profile of the package, compiled. Raises `UsageFault` for a name that is none."""
    if name not in profile_names():
        raise UsageFault("no such de-identification profile", hint=f"one of: {', '.join(profile_names())}")
    text = (resources.files("mediator.deid") / "profiles" / f"{name}.toml").read_text("utf-8")
    return compile_profile(parse(text), standard())
