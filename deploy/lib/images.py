"""Build Cloister's images on this machine, from Debian packages and hash-locked wheels, without a registry.

    images.py [NAME...]      prints one line per image: its name and its id (`sha256:…`)

An image carries the hash of everything it was made from in the label `org.cloister.inputs`; while that hash
stands, nothing is built. The id is the SHA-256 of the image's config: it is the digest that permits name.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import docker
from docker.errors import APIError, ImageNotFound

REPO = Path(__file__).resolve().parents[2]
IMAGES = REPO / "containers" / "images"
LABEL = "org.cloister.inputs"
BLOCK_BYTES = 1 << 20

# Every time in an image, so that the same inputs give the same layers: 1 November 2025, 00:00 UTC.
EPOCH_S = int(os.environ.get("SOURCE_DATE_EPOCH", "1761955200"))

# `minbase` and Python's standard library. Manuals and translations are a third of it, and no job reads them.
DEBIAN = [
    "mmdebstrap", "--variant=minbase", "--include=python3", "--format=tar",
    *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "info", "locale", "lintian")),
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--customize-hook=rm -rf $1/var/log/* $1/var/cache/* $1/var/lib/apt/lists/* $1/usr/share/python3/*/__pycache__",
    # mmdebstrap copies these from this machine: neither a reader's business nor the same on two machines.
    "--customize-hook=rm -f $1/etc/resolv.conf; echo localhost > $1/etc/hostname",
    "bookworm", "-",
]  # fmt: skip

# glibc 2.36 and CPython 3.11 are what bookworm has, whatever this machine runs.
FOR_THE_IMAGE = [
    "--python-version=3.11", "--implementation=cp", "--abi=cp311",
    *(f"--platform=manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)),
    *(f"--platform=manylinux{year}_x86_64" for year in ("2014", "2010", "1")),
]  # fmt: skip

# Left out of the wheels: what only a compiler, a test run or an installer would open.
DROPPED_FOLDERS = {"tests", "test", "test_files", "include", "bin", "__pycache__"}
DROPPED_SUFFIXES = {".pyi", ".a", ".h", ".hpp", ".cuh", ".cmake", ".pyx", ".pxd"}
# numpy.testing and torch open these two at import.
NEEDED_ALL_THE_SAME = ("numpy/_core/tests/_natype.py", "torch/bin/torch_shm_manager")


class Failed(Exception):
    """An image could not be built. The text is for the person at the keyboard; the hint says what to do."""

    def __init__(self, what: str, hint: str, code: int = 5) -> None:
        super().__init__(what)
        self.hint = hint
        self.code = code


@dataclass(frozen=True)
class Recipe:
    """One image: its parent, the files that go in (place in the build context → path here), its wheels.

    `on_request`: built when it is named, and never just because everything is.
    """

    name: str
    parent: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    lock: str | None = None
    on_request: bool = False


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("cloister-base"),
        Recipe("cloister-sentinel", "cloister-base", {
            "Containerfile": "containers/images/sentinel/Containerfile",
            "sentinel/keeper.py": "containers/images/sentinel/keeper.py",
            "sentinel/probe.py": "containers/images/sentinel/probe.py",
        }),
        Recipe("cloister-torch", "cloister-base", {
            "Containerfile": "containers/images/torch/Containerfile",
        }, lock="requirements/job-torch.txt"),
        Recipe("cloister-torch-cuda", "cloister-base", {
            "Containerfile": "containers/images/torch-cuda/Containerfile",
        }, lock="requirements/job-torch-cuda.txt", on_request=True),
        Recipe("cloister-job-torch", "cloister-torch", {
            "Containerfile": "containers/images/job-torch/Containerfile",
            "train.py": "containers/images/job-torch/train.py",
            "cloister_job": "containers/job",
        }),
        Recipe("cloister-job-torch-cuda", "cloister-torch-cuda", {
            "Containerfile": "containers/images/job-torch-cuda/Containerfile",
            "train.py": "containers/images/job-torch/train.py",
            "cloister_job": "containers/job",
        }, on_request=True),
        Recipe("cloister-job-tables", "cloister-job-torch", {
            "Containerfile": "containers/images/job-tables/Containerfile",
            "tables.py": "containers/images/job-tables/tables.py",
        }),
        Recipe("cloister-job-rogue", "cloister-job-torch", {
            "Containerfile": "containers/images/job-rogue/Containerfile",
            "attacks.py": "containers/images/job-attacker/attacks.py",
            "rogue.py": "containers/images/job-rogue/rogue.py",
        }),
        Recipe("cloister-attacker", "cloister-base", {
            "Containerfile": "containers/images/job-attacker/Containerfile",
            "attacks.py": "containers/images/job-attacker/attacks.py",
        }),
    )
}  # fmt: skip


def talk(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# ------------------------------------------------------------------ what an image is made from


def source_files(recipe: Recipe) -> Iterator[tuple[str, Path]]:
    """Yield (place in the context, file here), folders unrolled, sorted, byte code left out."""
    for place, source in sorted(recipe.files.items()):
        path = REPO / source
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    yield f"{place}/{file.relative_to(path)}", file
        elif path.is_file():
            yield place, path
        else:
            raise Failed(f"{recipe.name}: {source} is missing", "is this checkout complete?", code=1)


def inputs_hash(recipe: Recipe, parent_id: str) -> str:
    """Return the SHA-256 over everything that decides what the image holds."""
    digest = hashlib.sha256(json.dumps([recipe.name, parent_id, EPOCH_S]).encode())
    if recipe.parent is None:
        digest.update(json.dumps([DEBIAN, os.environ.get("CLOISTER_DEBIAN_MIRROR", "")]).encode())
    if recipe.lock:
        drops = [sorted(DROPPED_FOLDERS), sorted(DROPPED_SUFFIXES), NEEDED_ALL_THE_SAME]
        digest.update((REPO / recipe.lock).read_bytes() + json.dumps(drops).encode())
    for place, file in source_files(recipe):
        digest.update(f"{place}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\0".encode())
    return digest.hexdigest()


# ------------------------------------------------------------------ collecting, on the host


def run(command: list[str], what: str, log: Path, **more: object) -> None:
    """Run a program with its talk in `log`; if it fails, keep the log and raise its last complaint."""
    with log.open("wb") as story:
        done = subprocess.run(command, stderr=story, check=False, **more)  # type: ignore[call-overload]
    if done.returncode == 0:
        return
    complaints = [line for line in log.read_text(errors="replace").splitlines() if line.startswith(("E:", "ERROR:"))]
    kept, path = tempfile.mkstemp(prefix="cloister-", suffix=f"-{log.name}")
    os.close(kept)
    shutil.copyfile(log, path)
    last = complaints[-1].split(":", 1)[1].strip() if complaints else f"exit status {done.returncode}"
    raise Failed(f"{what}: {last}", f"the whole story is in {path}")


def require_mmdebstrap(work: Path) -> None:
    if shutil.which("mmdebstrap"):
        return
    if os.geteuid() != 0:
        raise Failed("mmdebstrap is not installed", "ask an administrator: apt-get install mmdebstrap")
    talk("images: installing mmdebstrap")
    install = f'. "{REPO}/deploy/lib/say.sh"; install_packages "{work}/apt.log" mmdebstrap debian-archive-keyring'
    run(["bash", "-c", install], "mmdebstrap could not be installed", work / "apt-errors.log")


def collect_debian(work: Path) -> Path:
    """Make the base file system; return the tar file."""
    require_mmdebstrap(work)
    talk("images: collecting Debian's packages (about half a minute)")
    tar = work / "base.tar"
    mirror = os.environ.get("CLOISTER_DEBIAN_MIRROR")
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH_S)}
    with tar.open("wb") as out:
        run([*DEBIAN, *([mirror] if mirror else [])], "mmdebstrap failed", work / "base.log",
            stdout=out, env=environment)  # fmt: skip
    return tar


def collect_wheels(recipe: Recipe, work: Path) -> Path:
    """Install the lock's wheels into a folder, for the image's Python, by hash; return the folder.

    `CLOISTER_TORCH_INDEX` names the index that has the CPU build of torch where pip's own has not.
    """
    assert recipe.lock
    talk(f"images: collecting wheels for {recipe.name} (about half a minute)")
    target = work / f"wheels-{recipe.name}"
    index = os.environ.get("CLOISTER_TORCH_INDEX")
    command = [
        sys.executable, "-m", "pip", "--no-input", "install", "--quiet", "--no-deps", "--no-compile",
        "--require-hashes", "--only-binary=:all:", "--no-warn-conflicts", "--target", str(target),
        *FOR_THE_IMAGE, *(["--extra-index-url", index] if index else []), "-r", str(REPO / recipe.lock),
    ]  # fmt: skip
    try:
        run(command, "the wheels could not be collected", work / "wheels.log", stdout=sys.stderr)
    except Failed as failed:
        if "torch" in str(failed) and not index:
            failed.hint = "set CLOISTER_TORCH_INDEX to an index that has the CPU build of torch"
        raise
    return target


def wheel_files(folder: Path) -> Iterator[tuple[str, Path]]:
    for root, folders, files in os.walk(folder):
        kept = sorted(name for name in folders if name not in DROPPED_FOLDERS)
        here = Path(root).relative_to(folder)
        folders[:] = kept
        for name in sorted(files):
            if Path(name).suffix not in DROPPED_SUFFIXES:
                yield f"wheels/{here / name}", Path(root) / name
    for name in NEEDED_ALL_THE_SAME:
        if (folder / name).is_file():
            yield f"wheels/{name}", folder / name


# ------------------------------------------------------------------ building, in the engine


def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Take out of a tar entry what differs between two machines."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = EPOCH_S
    entry.mode = 0o755 if entry.mode & 0o100 else 0o644
    return entry


def blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def import_base(client: docker.APIClient, recipe: Recipe, tar: Path, label: str) -> None:
    # Docker's own words for "import this tar": POST /images/create with fromSrc=-
    client.import_image_from_data(
        blocks(tar), repository=recipe.name, tag="latest",
        changes=[f"LABEL {LABEL}={label}", "ENV LANG=C.UTF-8", "ENV PATH=/usr/local/bin:/usr/bin:/bin"],
    )  # fmt: skip


def build(client: docker.APIClient, recipe: Recipe, wheels: Path | None, work: Path, label: str) -> None:
    talk(f"images: building {recipe.name}")
    context = work / f"{recipe.name}.tar"
    with tarfile.open(context, "w") as tar:
        for place, file in source_files(recipe):
            tar.add(file, place, filter=plain)
        for place, file in wheel_files(wheels) if wheels else ():
            tar.add(file, place, filter=plain)
    answers = client.build(
        fileobj=blocks(context), custom_context=True, dockerfile="Containerfile", tag=f"{recipe.name}:latest",
        labels={LABEL: label}, network_mode="none", rm=True, forcerm=True, decode=True,
    )  # fmt: skip
    for answer in answers:
        if "error" in answer:
            raise Failed(f"{recipe.name} could not be built: {answer['error'].strip()}", "see its Containerfile")
    context.unlink()


def standing(client: docker.APIClient, name: str) -> tuple[str, str]:
    """Return (image id, inputs hash) of an image that is there, else two empty strings."""
    try:
        found = client.inspect_image(f"{name}:latest")
    except ImageNotFound:
        return "", ""
    return found["Id"], (found["Config"].get("Labels") or {}).get(LABEL, "")


def ensure(client: docker.APIClient, wanted: list[str]) -> dict[str, str]:
    """Build what is missing or changed among the wanted images and their parents; return name → image id."""
    needed = [name for name in RECIPES if any(name in ancestry(want) for want in wanted)]
    ids: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="cloister-images-", dir="/var/tmp") as folder:
        work = Path(folder)
        with ThreadPoolExecutor(2) as pool:
            early: dict[str, Future[Path]] = {}

            def wheels_of(recipe: Recipe) -> Future[Path]:
                if recipe.name not in early:
                    early[recipe.name] = pool.submit(collect_wheels, recipe, work)
                return early[recipe.name]

            for recipe in (RECIPES[name] for name in needed):
                ids[recipe.name], have = standing(client, recipe.name)
                want = inputs_hash(recipe, ids.get(recipe.parent or "", ""))
                if ids[recipe.name] and have == want:
                    continue
                if recipe.parent is None:
                    # The two longest waits of a first run, side by side: Debian's packages and the wheels.
                    for other in (RECIPES[name] for name in needed if RECIPES[name].lock):
                        wheels_of(other)
                    import_base(client, recipe, collect_debian(work), want)
                else:
                    build(client, recipe, wheels_of(recipe).result() if recipe.lock else None, work, want)
                ids[recipe.name], _ = standing(client, recipe.name)
    return ids


def ancestry(name: str) -> list[str]:
    parent = RECIPES[name].parent
    return [*(ancestry(parent) if parent else []), name]


def main(arguments: list[str]) -> int:
    wanted = arguments or [name for name, recipe in RECIPES.items() if not recipe.on_request]
    if unknown := [name for name in wanted if name not in RECIPES]:
        talk(f"error: no image is called {unknown[0]}")
        talk(f"hint: one of {', '.join(RECIPES)}")
        return 2
    try:
        # Ten minutes: one layer of this size on a slow disk stays silent for long.
        client = docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto", timeout=600)
        for name, image_id in ensure(client, wanted).items():
            print(name, image_id)
    except Failed as failed:
        talk(f"error: {failed}")
        talk(f"hint: {failed.hint}")
        return failed.code
    except (APIError, docker.errors.DockerException, OSError) as failed:
        # The engine's own words: they name images and disks, never a patient.
        talk(f"error: the engine or the disk refused: {failed}")
        talk("hint: is there disk space, and does the engine still answer?")
        return 5
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
