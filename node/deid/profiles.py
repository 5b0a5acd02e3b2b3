"""Profiles and tables out of the installed package: the one place that opens gate 0's data files."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

from mediator.deid.profile import MAX_PROFILE_BYTES, compile_profile, parse
from mediator.deid.rules import ProfileTable
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


def profile_text(name: str) -> str:
    """The TOML of a profile of the package. Raises `UsageFault` for a name that is none."""
    if name not in profile_names():
        raise UsageFault("no such de-identification profile", hint=f"one of: {', '.join(profile_names())}, or a file")
    return (resources.files("mediator.deid") / "profiles" / f"{name}.toml").read_text("utf-8")


@cache
def load_profile(name: str) -> ProfileTable:
    """A profile of the package by its name, compiled. Raises `UsageFault` for a name that is none."""
    return compile_profile(parse(profile_text(name)), standard())


def load_profile_file(path: Path) -> ProfileTable:
    """A site's own profile, compiled. Its name may be none of ours: (0012,0063) must tell them apart.

    Raises `UsageFault`, `Malformed`, `UnsupportedVersion`.
    """
    try:
        text = path.read_bytes()[: MAX_PROFILE_BYTES + 1].decode("utf-8")
    except (OSError, UnicodeDecodeError):
        raise UsageFault("the profile file cannot be read", hint="a TOML file in UTF-8") from None
    table = compile_profile(parse(text), standard())
    if table.profile in profile_names():
        raise UsageFault(f"a site's own profile cannot be called {table.profile}", hint="give it another name")
    return table
