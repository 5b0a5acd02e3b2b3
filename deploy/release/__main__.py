"""`deploy/bundle.sh` and `deploy/release.sh`, once their environment stands."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from deploy.install.bundle import Bundle, this_machine
from deploy.install.release_keys import Refused, ReleaseKey, read_keys
from deploy.release import bundling, keys, publishing
from deploy.release.bundling import Order
from deploy.release.debs import ENGINES
from deploy.release.failures import Stopped
from deploy.release.tree import export, git
from deploy.release.wheels import SYSTEMS

REPO = Path(__file__).resolve().parents[2]


def _contents(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", choices=ENGINES, default="docker")
    parser.add_argument("--image", action="append", default=[])
    parser.add_argument("--no-images", action="store_true")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--no-debs", action="store_true")
    parser.add_argument("--debs", type=Path)
    parser.add_argument("--root", type=Path, default=Path("/"))
    parser.add_argument("--keyring", type=Path)


def _order(chosen: argparse.Namespace, system: str) -> Order:
    return Order(
        system=system, engine=chosen.engine, images=tuple(chosen.image or ["cloister-sentinel"]),
        debs_from=chosen.debs, images_from=chosen.images, root=chosen.root, keyring=chosen.keyring,
        no_debs=chosen.no_debs, no_images=chosen.no_images,
    )  # fmt: skip


def arguments(words: list[str]) -> argparse.Namespace:
    """What the two scripts' heads describe."""
    parser = argparse.ArgumentParser(prog="deploy/release.sh", add_help=False)
    verbs = parser.add_subparsers(dest="verb", required=True)
    bundle = verbs.add_parser("bundle", prog="deploy/bundle.sh", add_help=False)
    bundle.add_argument("--key", type=Path, required=True)
    bundle.add_argument("--out", type=Path, default=REPO / "dist")
    bundle.add_argument("--system", choices=SYSTEMS, default="debian-12")
    _contents(bundle)
    look = verbs.add_parser("check", prog="deploy/bundle.sh check", add_help=False)
    look.add_argument("file", type=Path)
    look.add_argument("--release-key", type=Path, action="append", default=[])
    look.add_argument("--unpack", type=Path)
    keygen = verbs.add_parser("keygen", prog="deploy/release.sh keygen", add_help=False)
    keygen.add_argument("--out", type=Path, required=True)
    keygen.add_argument("--name", required=True)
    verify = verbs.add_parser("verify", prog="deploy/release.sh verify", add_help=False)
    verify.add_argument("folder", type=Path)
    verify.add_argument("--release-key", type=Path, action="append", default=[])
    make = verbs.add_parser("make", prog="deploy/release.sh", add_help=False)
    make.add_argument("version")
    make.add_argument("--key", type=Path, required=True)
    make.add_argument("--out", type=Path)
    make.add_argument("--system", choices=SYSTEMS, action="append", default=[])
    make.add_argument("--untested", action="store_true")
    make.add_argument("--unlisted-key", action="store_true")
    make.add_argument("--no-advisories", action="store_true")
    make.add_argument("--ignore-advisory", action="append", default=[])
    make.add_argument("--dry-run", action="store_true")
    _contents(make)
    return parser.parse_args(words)


def _trusted(more: list[Path]) -> list[ReleaseKey]:
    return list(read_keys([REPO / "deploy" / bundling.KEYS, *more]))


def _bundle(chosen: argparse.Namespace) -> None:
    key = keys.load(chosen.key)
    with tempfile.TemporaryDirectory(prefix="cloister-bundle-", dir="/var/tmp") as folder:
        tree = export(REPO, Path(folder) / "tree")
        if git(REPO, "status", "--porcelain"):
            print("note: what is changed here and not committed is not in the bundle", file=sys.stderr)
        print(bundling.make(tree, _order(chosen, chosen.system), key, Path(folder), chosen.out.resolve()))


def _check(chosen: argparse.Namespace) -> None:
    bundle = Bundle.verify(chosen.file, _trusted(chosen.release_key), machine=None)
    said = bundle.manifest
    print(f"cloister {said.version} for {', '.join(said.systems)} {said.arch} {said.python}, "
          f"{len(said.files)} files, signed by {bundle.signed_by}")  # fmt: skip
    if chosen.unpack is not None:
        bundle.unpack(chosen.unpack)
    here = this_machine()
    if (here.arch, here.system) != (said.arch, said.systems[0]):
        print(f"note: this machine is {here.system}, {here.arch}", file=sys.stderr)


def _make(chosen: argparse.Namespace) -> None:
    key = keys.load(chosen.key)
    wish = publishing.Wish(
        chosen.version, (chosen.out or REPO / "dist" / f"cloister-{chosen.version}").resolve(),
        tuple(_order(chosen, system) for system in dict.fromkeys(chosen.system or ["debian-12"])),
        untested=chosen.untested, unlisted_key=chosen.unlisted_key,
        advisories=not chosen.no_advisories, ignored=tuple(chosen.ignore_advisory),
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="cloister-tree-", dir="/var/tmp") as folder:
        tree = export(REPO, Path(folder) / "tree")
        checks = publishing.check(tree, wish, key)
        if chosen.dry_run:
            print("\n".join(f"would {step}" for step in publishing.steps(wish)))
            return
        print("\n".join(str(path) for path in publishing.make(tree, wish, key, checks)))
    print(f"next: git push origin {publishing.tag_of(wish.version)}; publish the folder", file=sys.stderr)


def _run(chosen: argparse.Namespace) -> None:
    if chosen.verb == "keygen":
        print(keys.keygen(chosen.out, chosen.name).public.fingerprint)
        print(f"next: add {chosen.out.name}.pub to deploy/release-keys.txt", file=sys.stderr)
        print(f"next: keep {chosen.out.name} on a machine without a network, with a copy elsewhere", file=sys.stderr)
    elif chosen.verb == "verify":
        print("\n".join(publishing.verify(chosen.folder, _trusted(chosen.release_key))))
    else:
        {"bundle": _bundle, "check": _check, "make": _make}[chosen.verb](chosen)


def main(words: list[str]) -> int:
    try:
        _run(arguments(words))
    except (Stopped, Refused) as stopped:
        print(f"error: {stopped}\nhint: {stopped.hint}", file=sys.stderr)
        return stopped.code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
