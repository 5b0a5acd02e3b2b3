"""The images of the demo: built where they are missing, and the untrained model that comes out of one."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import docker

from deploy.demo.failures import DemoFailed

JOB, ROGUE, SENTINEL = "cloister-job-torch", "cloister-job-rogue", "cloister-sentinel"
_INITIAL = "/tmp/initial"  # noqa: S108  inside the container


def ensure(repository: Path, names: list[str], on_line: Callable[[str], None]) -> dict[str, str]:
    """Build what is missing; image id (`sha256:…`) by name. What the script says is handed on line by line."""
    process = subprocess.Popen(
        [str(repository / "deploy" / "lib" / "images.sh"), *names], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    said: list[str] = []
    for line in process.stderr or ():
        said.append(line.rstrip())
        on_line(line.rstrip())
    out = process.stdout.read() if process.stdout else ""
    if process.wait():
        error = next((line for line in said if line.startswith("error: ")), "error: the images could not be built")
        hint = next((line for line in said if line.startswith("hint: ")), "hint: see what it said above")
        raise DemoFailed(error.removeprefix("error: "), hint.removeprefix("hint: "), process.returncode)
    return dict(line.split(" ", 1) for line in out.splitlines())


def archive(images: Iterable[str], path: Path) -> Path:
    """One `docker save` file of several images: layers that they share are in it once."""
    client = docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto", timeout=600)
    answer = client.get(f"{client.base_url}/images/get", params={"names": list(images)}, stream=True, timeout=600)
    answer.raise_for_status()
    with path.open("wb") as file:
        for piece in answer.iter_content(1 << 20):
            file.write(piece)
    return path


def untrained_model(image: str, folder: Path) -> Path:
    """`initial.safetensors` and `tensors.json` out of the job's image, without a mount: the engine hands them over."""
    client = docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto")
    container = client.create_container(image, ["--initial", _INITIAL], network_disabled=True, user="65532:65532")
    try:
        client.start(container)
        if client.wait(container)["StatusCode"]:
            raise DemoFailed("the job's image gives no untrained model", "see containers/images/job-torch/train.py")
        blocks, _ = client.get_archive(container, _INITIAL)
        with tarfile.open(fileobj=io.BytesIO(b"".join(blocks))) as archive:
            for name in ("initial.safetensors", "tensors.json"):
                member = archive.extractfile(f"initial/{name}")
                (folder / name).write_bytes(member.read() if member else b"")
    finally:
        client.remove_container(container, force=True)
    return folder / "initial.safetensors"
