"""Collect what a bundle holds, and put it together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploy.install.bundle import this_machine
from deploy.release import debs, images, sbom, wheels
from deploy.release.failures import Stopped
from deploy.release.keys import SigningKey
from deploy.release.pack import Release, Source, pack
from deploy.release.tree import Tree

SBOM, REQUIREMENTS, KEYS = "sbom.cdx.json", "requirements.txt", "release-keys.txt"
SCRIPTS = "deploy/install"
# what somebody at a machine without a network reads
DOCS = {"docs/CHANGELOG.md": "CHANGELOG.md", "docs/LICENSE": "LICENSE", "docs/operate.md": "deploy/docs/operate.md",
        "docs/release.md": "deploy/docs/release.md"}  # fmt: skip


@dataclass(frozen=True)
class Order:
    """What goes into a bundle beside the wheels. A folder of package files or archives stands for asking anybody."""

    system: str = "debian-12"
    engine: str = "docker"
    images: tuple[str, ...] = ("cloister-sentinel",)
    debs_from: Path | None = None
    images_from: Path | None = None
    root: Path = Path("/")
    keyring: Path | None = None
    no_debs: bool = False
    no_images: bool = False


def release_of(tree: Tree, order: Order) -> Release:
    if order.system not in wheels.SYSTEMS:
        raise Stopped(f"no bundle is made for {order.system}", f"one of {', '.join(wheels.SYSTEMS)}")
    tag = wheels.SYSTEMS[order.system].tag
    return Release(tree.version, tree.protocol, tree.commit, tree.made_s, tag, wheels.ARCH, (order.system,))


def make(tree: Tree, order: Order, key: SigningKey, work: Path, out: Path, *, wheel: Path | None = None) -> Path:
    """The bundle, in `out`; returns its path. Raises `Stopped`."""
    release = release_of(tree, order)
    found = [wheel or wheels.build(tree, work / "own"), *wheels.collect(tree, wheels.SYSTEMS[order.system], work / "w")]
    packages = _debs(order, work)
    archives = _images(tree, order, work)
    (work / REQUIREMENTS).write_text(wheels.requirements(found))
    sbom.write(work / SBOM, release, found, packages, archives)
    sources = [
        *(Source(f"wheels/{each.name}", "wheel", each, wheels.project_of(each)[0]) for each in found),
        *(Source(f"debs/{each.name}", "deb", each, debs.name_and_version(each)[0]) for each in packages),
        *(Source(f"images/{each.name}.tar", "image", each.path, each.name, each.facts.image) for each in archives),
        Source(SBOM, "sbom", work / SBOM), Source(REQUIREMENTS, "doc", work / REQUIREMENTS),
        *installer(tree), *(Source(path, "doc", tree.folder / here) for path, here in DOCS.items()),
    ]  # fmt: skip
    return pack(out, release, sources, key)


def installer(tree: Tree) -> list[Source]:
    """`install.sh` and its program, as they stand in the commit; the keys it trusts go with it."""
    here = [tree.folder / "deploy" / name for name in ("install.sh", KEYS)]
    program = sorted((tree.folder / SCRIPTS).rglob("*.py"))
    inside = tree.folder / "deploy"
    return [Source(str(path.relative_to(inside)), "script", path) for path in [*here, *program] if path.is_file()]


def _debs(order: Order, work: Path) -> list[Path]:
    if order.no_debs:
        return []
    if order.debs_from is not None:
        return debs.given(order.debs_from, work / "debs")
    if order.engine not in debs.ENGINES:
        raise Stopped(f"no engine is called {order.engine}", f"one of {', '.join(debs.ENGINES)}")
    if _system_of(order.root) != order.system:
        hint = "make it there, name a root of that system (--root DIR), or give the packages (--debs DIR, --no-debs)"
        raise Stopped(f"the Debian packages of {order.system} are not to be had from {_system_of(order.root)}", hint)
    apt = debs.Apt(work / "apt", order.root, order.keyring)
    return debs.collect(apt, [*debs.NEEDED, *debs.ENGINES[order.engine]], work / "debs")


def _system_of(root: Path) -> str:
    return this_machine(os_release=root / "etc/os-release").system


def _images(tree: Tree, order: Order, work: Path) -> list[images.Archived]:
    if order.no_images:
        return []
    if order.images_from is not None:
        return images.given(order.images_from)
    return images.collect(tree.repo, list(order.images), work / "images")
