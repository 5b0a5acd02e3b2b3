"""Images of a release, as archives that `cloister node image add` and an engine's `load` take.

They are made anew from what was read and verified: without names, tags and times, the same bytes of the same image.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import DockerException

from containers import archive
from deploy.release.failures import Stopped
from mediator.errors import CloisterError
from mediator.images import ImageFacts

ARCHITECTURE = "amd64"
# an engine packs a whole image before it sends the first byte
_TIMEOUT_S = 1800


@dataclass(frozen=True)
class Archived:
    """An image's archive, and what was read in it."""

    name: str
    path: Path
    facts: ImageFacts


def collect(repo: Path, names: list[str], out: Path) -> list[Archived]:
    """Have these images made where they are not there, and write each to `out`. Raises `Stopped`."""
    out.mkdir(parents=True, exist_ok=True)
    made = _said([str(repo / "deploy/lib/images.sh"), *names])
    ids = dict(line.split() for line in made.splitlines())
    socket = _said([str(repo / "deploy/lib/engine.sh")]).strip()
    try:
        engine = docker.APIClient(base_url=socket, version="auto", timeout=_TIMEOUT_S)
        return [write(engine, name, ids[name], out) for name in names]
    except (CloisterError, DockerException, OSError) as error:
        raise Stopped(f"an image could not be had ({type(error).__name__})", "see the engine's log", 5) from None


def _said(command: list[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise Stopped("the images could not be made", "the lines above say why; --no-images leaves them out", 5)
    return done.stdout


def write(engine: docker.APIClient, name: str, image: str, out: Path) -> Archived:
    """The archive of an image that the engine holds, as `name`.tar in `out`."""
    saved, path = out / f"{name}.saved", out / f"{name}.tar"
    with saved.open("wb") as file:
        for piece in engine.get_image(image, chunk_size=1 << 20):
            file.write(piece)
    found = archive.read_file(saved, architecture=ARCHITECTURE)
    if [each.facts.image for each in found] != [image]:
        raise Stopped(f"the engine handed out another image than {name}", "an engine's store may be damaged", 4)
    with path.open("wb") as file:
        for piece in archive.rebuilt(saved, found):
            file.write(piece)
    saved.unlink()
    return Archived(name, path, found[0].facts)


def given(folder: Path) -> list[Archived]:
    """The archives of a folder, read and verified, instead of asking an engine."""
    found = []
    for path in sorted(folder.glob("*.tar")):
        try:
            (image,) = archive.read_file(path, architecture=ARCHITECTURE)
        except (CloisterError, ValueError) as error:
            raise Stopped(f"{path.name} is no archive of one image: {error}", "docker save writes one", 4) from None
        found.append(Archived(path.stem, path, image.facts))
    return found
