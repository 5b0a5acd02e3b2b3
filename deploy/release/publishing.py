"""Make a release, in the order in which it can still be stopped: checks, files, signatures, and the tag last of all."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from deploy.install.bundle import Bundle, header, padding
from deploy.install.release_keys import Refused, ReleaseKey, read_keys, signed
from deploy.release import bundling, provenance, wheels
from deploy.release.bundling import Order
from deploy.release.failures import Stopped
from deploy.release.keys import SigningKey, public_line
from deploy.release.pack import Source, sha256_of
from deploy.release.tree import Tree, git

SUMS, SUMS_SIGNATURE, CHANGES, PUBLIC_KEY = "SHA256SUMS", "SHA256SUMS.sig", "CHANGES.md", "release-key.pub"
# beside .git: the tree that deploy/test.sh has passed whole
TESTED = "cloister-tested"


@dataclass(frozen=True)
class Wish:
    """What is asked of `deploy/release.sh`."""

    version: str
    out: Path
    orders: tuple[Order, ...]
    untested: bool = False
    unlisted_key: bool = False
    advisories: bool = True
    ignored: tuple[str, ...] = ()


def tag_of(version: str) -> str:
    return f"v{version}"


def check(tree: Tree, wish: Wish, key: SigningKey) -> dict[str, str]:
    """What has to be so before anything is made; returns what to say of it in the provenance. Raises `Stopped`."""
    tag = tag_of(wish.version)
    if git(tree.repo, "status", "--porcelain"):
        raise Stopped("this checkout has changes that no commit holds", "git status; commit them, or put them away")
    if tree.version != wish.version:
        raise Stopped(f"pyproject.toml says {tree.version}, not {wish.version}", "set it, and commit")
    if not tree.changes(wish.version):
        raise Stopped(f"CHANGELOG.md has no section {wish.version}", "write it: what a user would notice")
    if git(tree.repo, "tag", "--list", tag):
        raise Stopped(f"the tag {tag} is there already", "a version is made once; choose the next")
    if wish.out.exists():
        raise Stopped(f"{wish.out} is there already", "remove it, or name another with --out")
    listed = key.public.raw in {each.raw for each in trusted(tree)}
    if not listed and not wish.unlisted_key:
        raise Stopped(
            "deploy/release-keys.txt does not hold this key, so a site has to be given it before it takes this release",
            f"add the line of {key.path.name}.pub and commit; --unlisted-key goes on", 3,
        )  # fmt: skip
    tested = _tested(tree)
    if not tested and not wish.untested:
        raise Stopped("deploy/test.sh has not passed on this very tree", "run it; --untested says so in the release", 3)
    return {
        "tests": "passed" if tested else "not run", "advisories": "asked" if wish.advisories else "not asked",
        "key": "listed" if listed else "not listed",
    }  # fmt: skip


def trusted(tree: Tree) -> tuple[ReleaseKey, ...]:
    try:
        return read_keys([tree.folder / "deploy" / bundling.KEYS])
    except Refused as refused:
        raise Stopped(str(refused), refused.hint) from None


def _tested(tree: Tree) -> bool:
    record = Path(tree.repo, git(tree.repo, "rev-parse", "--git-path", TESTED))
    return record.is_file() and record.read_text().strip() == git(tree.repo, "rev-parse", f"{tree.commit}^{{tree}}")


def steps(wish: Wish) -> list[str]:
    """What `make` does, for `--dry-run`."""
    bundles = [f"bundle for {order.system}" for order in wish.orders]
    asked = ["ask what is known against the packages (deploy/lib/advisories.sh)"] if wish.advisories else []
    return [
        *asked, f"make the wheel cloister-{wish.version}-py3-none-any.whl", *(f"make the {each}" for each in bundles),
        "write the installer, bill of materials, changelog section and public key", "sign provenance and SHA256SUMS",
        f"put everything into {wish.out}", f"make the signed tag {tag_of(wish.version)}",
    ]  # fmt: skip


def make(tree: Tree, wish: Wish, key: SigningKey, checks: dict[str, str]) -> list[Path]:
    """Everything `check` was asked for; returns the files. What fails leaves neither folder nor tag."""
    partial = wish.out.with_name(f".{wish.out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with tempfile.TemporaryDirectory(prefix="cloister-release-", dir="/var/tmp") as folder:
            _files(tree, wish, key, checks, Path(folder), partial)
        verify(partial, [key.public])
        partial.rename(wish.out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    try:
        _tag(tree, wish.version, key)
    except BaseException:
        shutil.rmtree(wish.out, ignore_errors=True)
        raise
    return sorted(wish.out.iterdir())


def _files(tree: Tree, wish: Wish, key: SigningKey, checks: dict[str, str], work: Path, out: Path) -> None:
    if wish.advisories:
        _advisories(tree, wish, out)
    wheel = wheels.build(tree, out)
    for order in wish.orders:
        place = work / order.system
        place.mkdir()
        bundling.make(tree, order, key, place, out, wheel=wheel)
        shutil.copyfile(place / bundling.SBOM, out / f"cloister-{wish.version}-{order.system}.{bundling.SBOM}")
    _tar(out / f"cloister-{wish.version}-install.tar", bundling.installer(tree), tree.made_s)
    (out / CHANGES).write_text(tree.changes(wish.version) + "\n", "utf-8")
    (out / PUBLIC_KEY).write_text(public_line(key.private, key.public.name), "utf-8")
    release = bundling.release_of(tree, wish.orders[0])
    made = sorted(out.iterdir())
    said = provenance.statement(tree, release, made, checks)
    provenance.write(out / f"cloister-{wish.version}.intoto.jsonl", said, key)
    sums = "".join(f"{sha256_of(path)}  {path.name}\n" for path in sorted(out.iterdir()))
    (out / SUMS).write_text(sums, "ascii")
    (out / SUMS_SIGNATURE).write_bytes(key.sign(sums.encode("ascii")))


def _advisories(tree: Tree, wish: Wish, out: Path) -> None:
    ignored = [word for name in wish.ignored for word in ("--ignore-vuln", name)]
    with (out / f"cloister-{wish.version}.advisories.cdx.json").open("wb") as file:
        command = [str(tree.repo / "deploy/lib/advisories.sh"), str(tree.folder / wheels.LOCK), *ignored]
        done = subprocess.run(command, stdout=file, check=False)
    if done.returncode == 1:
        hint = "upgrade the package, or write down why it does not reach us and name it with --ignore-advisory ID"
        raise Stopped("something is known against a package of this release", hint, 3)
    if done.returncode != 0:
        raise Stopped("nobody could be asked what is known", "try again; --no-advisories says so in the release", 5)


def _tar(path: Path, sources: list[Source], made_s: int) -> None:
    with path.open("wb") as file:
        for source in sorted(sources, key=lambda each: each.path):
            content = source.here.read_bytes()
            file.write(header(source.path, len(content), made_s) + content + bytes(padding(len(content))))
        file.write(bytes(1024))


def _tag(tree: Tree, version: str, key: SigningKey) -> None:
    """An annotated tag, signed with the release key in OpenSSH's way, and verified as anybody would."""
    subject = f"Cloister {version}\n\n{tree.changes(version)}\n"
    git(
        tree.repo, "-c", "gpg.format=ssh", "-c", f"user.signingkey={key.path.resolve()}", "tag", "--sign",
        "--cleanup=verbatim", "-m", subject, tag_of(version), tree.commit,
    )  # fmt: skip
    with tempfile.NamedTemporaryFile("w") as allowed:
        allowed.write(f"* {public_line(key.private, key.public.name)}")
        allowed.flush()
        try:
            git(tree.repo, "-c", f"gpg.ssh.allowedSignersFile={allowed.name}", "verify-tag", tag_of(version))
        except Stopped:
            git(tree.repo, "tag", "--delete", tag_of(version))
            raise


def verify(folder: Path, keys: list[ReleaseKey]) -> list[str]:
    """Everything in a release's folder against its signatures; returns a line for each thing seen. Raises `Stopped`."""
    try:
        sums, signature = (folder / SUMS).read_bytes(), (folder / SUMS_SIGNATURE).read_bytes()
    except OSError:
        raise Stopped(f"{folder} is no release: it has no {SUMS} with its signature", "name its folder") from None
    signer = next((key for key in keys if signed(key, sums, signature)), None)
    if signer is None:
        raise Stopped(f"{SUMS} is not signed by a release key that is trusted here", "--release-key KEY.pub", 4)
    listed = {name: sha256 for sha256, _, name in (line.partition("  ") for line in sums.decode("ascii").splitlines())}
    for name, sha256 in listed.items():
        path = folder / name
        if "/" in name or path.is_symlink() or not path.is_file() or sha256_of(path) != sha256:
            raise Stopped(f"{name} is missing, or not what was signed", "fetch it again", 4)
    if more := {path.name for path in folder.iterdir()} - {*listed, SUMS, SUMS_SIGNATURE}:
        raise Stopped(f"{min(more)} is no part of this release", "take it away", 4)
    seen = [f"{SUMS}: {len(listed)} files, signed by {signer.name} ({signer.fingerprint})"]
    for path in sorted(folder.glob("*.intoto.jsonl")):
        said = provenance.read(path, keys)
        wrong = [each["name"] for each in said["subject"] if listed.get(each["name"]) != each["digest"]["sha256"]]
        if wrong:
            raise Stopped(f"{path.name} speaks of another {wrong[0]}", "fetch it again", 4)
        built = said["predicate"]["buildDefinition"]
        commit = built["resolvedDependencies"][0]["digest"]["gitCommit"]
        seen.append(f"{path.name}: {len(said['subject'])} files of commit {commit}, tests "
                    f"{built['internalParameters']['checks']['tests']}")  # fmt: skip
    for path in sorted(folder.glob("*.bundle")):
        try:
            found = Bundle.verify(path, keys, machine=None)
        except Refused as refused:
            raise Stopped(f"{path.name}: {refused}", refused.hint, refused.code) from None
        seen.append(f"{path.name}: {len(found.manifest.files)} files")
    return seen
