"""What only a researcher's own machine asks of its engine: build an image, find one by name, hear what a job prints.

A hospital's broker has nothing of this: its engine is `containers.engine.ContainerEngine`, and its five verbs are all
it has.
"""

from __future__ import annotations

import io
import re
import tarfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from containers.broker import Broker
from containers.engine import ContainerEngine, NotFound, _asking
from containers.tarballs import Tar, exactly
from mediator.errors import EngineUnavailable, UsageFault
from mediator.grammar import DIGEST
from mediator.ports import JobEvent, Prepared
from mediator.types import OutputFile, Resources

CONTAINERFILE = "Containerfile"
# an image's project is code; a folder larger than this holds something that does not belong into it
MAX_CONTEXT_BYTES = 256 << 20
# a layer of torch on a slow disk stays silent for long
BUILD_TIMEOUT_S = 600.0
LAST_LINES = 30
# how an image is asked for its untrained model (containers/job/initial.py), and where
INITIAL_OPTION = "--initial"
_INITIAL = "/tmp/initial"  # noqa: S108  inside the container
_JOB_USER = "65532:65532"
_MAX_FILES = 64
_SAMPLE_S = 0.25
_FROM = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?\s*$", re.IGNORECASE | re.MULTILINE)


class KitEngine(ContainerEngine):
    """The engine of a researcher's own machine."""

    def digest_of(self, image: str) -> str | None:
        """The digest (`sha256:…`) of an image by name or digest, or None."""
        if re.fullmatch(DIGEST, image):
            found = self.image(image)
            return found.id if found else None
        name = image if ":" in image.rpartition("/")[2] else f"{image}:latest"
        with _asking("list its images"):
            for entry in self._api.images():
                # Podman qualifies a name that nobody did: one way when it loads an image, another when it builds one
                tags = entry.get("RepoTags") or []
                if {name, f"localhost/{name}"} & set(tags) or any(tag.endswith(f"/library/{name}") for tag in tags):
                    return f"sha256:{str(entry['Id']).removeprefix('sha256:')}"
        return None

    def build(self, folder: Path, tag: str) -> Iterator[str]:
        """Build `folder/Containerfile` without a network and tag it; yields the engine's lines.

        Raises `UsageFault` for a folder that is no project, a base image that is not here, or a build that fails.
        """
        recipe = folder / CONTAINERFILE
        if not recipe.is_file():
            raise UsageFault(f"{folder} holds no {CONTAINERFILE}", hint="make a project: cloister job new FOLDER")
        self._check_bases(recipe.read_text("utf-8", "replace"))
        context = _context(folder)
        with _asking("build an image"):
            answers = self._api.build(
                fileobj=context, custom_context=True, dockerfile=CONTAINERFILE, tag=tag, network_mode="none", rm=True,
                forcerm=True, decode=True,
            )  # fmt: skip
            for answer in answers:
                if "error" in answer:
                    raise UsageFault(
                        f"the image could not be built: {printable(answer['error'])}", hint=f"see {recipe}"
                    )
                yield from filter(None, map(printable, str(answer.get("stream", "")).splitlines()))

    def initial(self, image: str, limits: Resources, within_s: float, limit_bytes: int) -> Initial:
        """Have an image make its untrained model: started as `--initial FOLDER`, without a network, data or rights.

        What it wrote is read out of the ended container, which is removed. One that does not end in time is ended.
        """
        with _asking("make a container"):
            container: str = self._api.create_container(
                image, [INITIAL_OPTION, _INITIAL], user=_JOB_USER, network_disabled=True,
                host_config=self._api.create_host_config(
                    network_mode="none", cap_drop=["ALL"], security_opt=["no-new-privileges"],
                    mem_limit=limits.memory_bytes, memswap_limit=limits.memory_bytes,
                    nano_cpus=int(limits.cpus * 1e9), pids_limit=limits.pids,
                ),
            )["Id"]  # fmt: skip
        try:
            self.start(container)
            status = self._ended(container, within_s)
            return Initial(status, self._files(container, limit_bytes), self.last_lines(container))
        finally:
            self.remove(container)

    def _ended(self, container: str, within_s: float) -> int | None:
        until_s = time.monotonic() + within_s
        while time.monotonic() < until_s:
            state = (self.inspect(container) or {}).get("State", {})
            if state.get("Status") in ("exited", "dead", "stopped"):
                return int(state.get("ExitCode", -1))
            time.sleep(_SAMPLE_S)
        self.stop(container, 0)
        return None

    def _files(self, container: str, limit_bytes: int) -> dict[str, bytes]:
        """The plain files of the folder that the container was told to fill; nothing where there is none."""
        with _asking("read a container's files"):
            try:
                blocks, _ = self._api.get_archive(container, _INITIAL)
            except NotFound:
                return {}
            tar, files, left = Tar(_Blocks(blocks), max_entries=_MAX_FILES), {}, limit_bytes
            for entry in tar:
                if entry.kind == "file":
                    left -= entry.size_bytes
                    if left < 0:
                        raise UsageFault(f"the image's untrained model is larger than {limit_bytes} bytes")
                    files[entry.name.rpartition("/")[2]] = exactly(tar, entry.size_bytes)
            return files

    def memory_bytes(self, container: str) -> int:
        """What a container holds in memory at this moment, without the file cache that the kernel would give up."""
        with _asking("measure a container"):
            found = self._api.stats(container, stream=False, one_shot=True).get("memory_stats") or {}
        parts = found.get("stats") or {}
        cache = parts.get("total_inactive_file", parts.get("inactive_file", 0))
        return max(0, int(found.get("usage", 0)) - int(cache))

    def last_lines(self, container: str) -> tuple[str, ...]:
        """The last lines a container printed."""
        with _asking("read a container's output"):
            raw: bytes = self._api.logs(container, stdout=True, stderr=True, tail=LAST_LINES)
        return tuple(printable(line) for line in raw.decode("utf-8", "replace").splitlines())

    def _check_bases(self, recipe: str) -> None:
        stages = {"scratch"}
        for base, stage in _FROM.findall(recipe):
            if base.lower() not in stages and self.digest_of(base) is None:
                raise UsageFault(
                    f"the base image {printable(base)} is not on this machine",
                    hint=f"ours are made without a registry: ./deploy/lib/images.sh {printable(base)}",
                )
            stages.add(stage.lower())


@dataclass(frozen=True)
class Initial:
    """What an image made of `--initial`: its exit status (None: it did not end), its files, its last lines."""

    status: int | None
    files: Mapping[str, bytes] = field(repr=False)
    lines: tuple[str, ...] = ()


class _Blocks:
    """The engine's answer, block by block, as something to read from."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return b""
            self._rest = block
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


@dataclass
class Observed:
    """What was seen of a job's container: the most memory it held (bytes, sampled), and the last lines it printed."""

    peak_bytes: int = 0
    lines: tuple[str, ...] = ()


@dataclass
class KitRunner:
    """A broker whose containers are looked at while they run. Implements `mediator.ports.Runner`."""

    broker: Broker
    engine: KitEngine
    site: str
    observed: dict[str, Observed] = field(default_factory=dict)

    def prepare(self, signed_spec: str) -> Prepared:
        return self.broker.prepare(signed_spec)

    def execute(self, job: str) -> Iterator[JobEvent]:
        seen = self.observed.setdefault(job, Observed())
        main = next((one.id for one in self.engine.containers(self.site, job) if one.role != "keeper"), "")
        over = threading.Event()
        threading.Thread(target=self._sample, args=(main, seen, over), name=f"memory-{job}", daemon=True).start()
        try:
            yield from self.broker.execute(job)
        finally:
            over.set()
            self._read_lines(main, seen)

    def finalise(self, job: str, task: int) -> Sequence[OutputFile]:
        return self.broker.finalise(job, task)

    def terminate(self, job: str, grace_s: float) -> None:
        for one in self.engine.containers(self.site, job):
            if one.role != "keeper":
                self._read_lines(one.id, self.observed.setdefault(job, Observed()))
        self.broker.terminate(job, grace_s)

    def clean(self, keep: Sequence[str]) -> Sequence[str]:
        return self.broker.clean(keep)

    def _sample(self, main: str, seen: Observed, over: threading.Event) -> None:
        while main and not over.wait(_SAMPLE_S):
            try:
                seen.peak_bytes = max(seen.peak_bytes, self.engine.memory_bytes(main))
            except EngineUnavailable:
                return  # the container is gone; what was measured stays

    def _read_lines(self, main: str, seen: Observed) -> None:
        try:
            seen.lines = self.engine.last_lines(main) or seen.lines
        except EngineUnavailable:
            pass  # removed already: it was read before


def printable(text: str) -> str:
    """One line without what a terminal would obey."""
    return "".join(each for each in str(text).strip() if each.isprintable())


def _context(folder: Path) -> Any:
    """The folder as a tar file in memory: plain files and folders, hidden ones left out."""
    sink, total = io.BytesIO(), 0
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            if any(part.startswith(".") or part == "__pycache__" for part in inside.parts) or path.is_symlink():
                continue
            if path.is_file():
                total += path.stat().st_size
                if total > MAX_CONTEXT_BYTES:
                    raise UsageFault(f"{folder} holds more than {MAX_CONTEXT_BYTES >> 20} MB: data has no place there")
                tar.add(path, str(inside), filter=_plain)
    sink.seek(0)
    return sink


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nothing of this machine's users and times in the image; readable by the container's user."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    entry.mode = 0o755 if entry.mode & 0o100 else 0o644
    return entry
