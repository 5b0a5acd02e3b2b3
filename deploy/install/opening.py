"""Which version this run is about: a bundle that is named, or the checkout that the installer stands in."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from . import bundle as bundles
from . import layout
from .machine import Machine
from .release_keys import Refused, read_keys
from .sources import Source, checkout, from_bundle, from_checkout
from .talk import USAGE, Fault, say

_KEYS = "release-keys.txt"


@contextlib.contextmanager
def opened(machine: Machine, bundle: Path | None, keys: list[Path]) -> Iterator[Source]:
    """The version to install. Raises `Fault`: exit code 2 where there is none, or the bundle's own."""
    if bundle is None:
        top = checkout()
        if top is None:
            raise Fault(
                "there is no version to install here", "name a bundle (--bundle FILE), or use a checkout", USAGE
            )
        yield from_checkout(top)
        return
    # one run at a time, and each begins with an empty one
    work = machine.at(layout.WORK)
    clear_work(machine)
    try:
        yield _from_bundle(machine, bundle, keys, work)
    finally:
        clear_work(machine)


def clear_work(machine: Machine) -> None:
    """Remove what a run before this one unpacked, or whatever else is there."""
    work = machine.at(layout.WORK)
    if work.is_dir() and not work.is_symlink():
        shutil.rmtree(work)
    else:
        work.unlink(missing_ok=True)


def look(machine: Machine, bundle: Path, keys: list[Path]) -> tuple[str, ...]:
    """The Debian packages that a bundle brings, of which every byte was verified; nothing is written."""
    try:
        verified = _verified(machine, bundle, keys)
    except Refused as refused:
        raise Fault(str(refused), refused.hint, refused.code) from None
    say(f"bundle {verified.manifest.version}: every byte verified, signed by {verified.signed_by}")
    return tuple(file.name for file in verified.of("deb"))


def _verified(machine: Machine, bundle: Path, keys: list[Path]) -> bundles.Bundle:
    ours = Path(__file__).resolve().parents[1] / _KEYS
    trusted = read_keys([*([ours] if ours.exists() else []), *keys])
    here = bundles.this_machine(
        python=f"cp{sys.version_info[0]}{sys.version_info[1]}", os_release=machine.at("/etc/os-release")
    )
    return bundles.Bundle.verify(bundle, trusted, machine=here)


def _from_bundle(machine: Machine, bundle: Path, keys: list[Path], work: Path) -> Source:
    try:
        verified = _verified(machine, bundle, keys)
        work.parent.mkdir(parents=True, exist_ok=True)
        work.mkdir(mode=0o700)
        verified.unpack(work / "bundle")
    except Refused as refused:
        raise Fault(str(refused), refused.hint, refused.code) from None
    except OSError as error:
        raise Fault(f"the bundle cannot be unpacked ({error.strerror})", "is the disk full?") from None
    manifest = verified.manifest
    say(f"bundle {manifest.version}: every byte verified, signed by {verified.signed_by}")
    debs = tuple((file.name, work / "bundle" / file.path) for file in verified.of("deb"))
    image = next(
        (
            (work / "bundle" / file.path, file.digest)
            for file in verified.of("image")
            if file.name == "cloister-sentinel"
        ),
        None,
    )
    return from_bundle(work / "bundle", manifest.version, verified.signed_by, image, debs, tuple(manifest.systems))
