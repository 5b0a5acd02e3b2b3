"""How an engine gives a container its GPUs: by CDI where it has that, by NVIDIA's runtime otherwise.

The one place that decides, from what the engine says of itself (`/info`) and the CDI specs that lie in its folders.
`sandbox.create_arguments` asks for what was decided, the broker reads it back, `cloister check` says it beforehand.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mediator.errors import Code, Denied, Reason

Way = Literal["cdi", "nvidia"]

# the vendor and class that `nvidia-ctk cdi generate` writes, and the name its toolkit registers a runtime under
KIND = "nvidia.com/gpu"
RUNTIME = "nvidia"
# where Podman looks, which does not say so (containers.conf(5), cdi_spec_dirs)
PODMANS_FOLDERS = ("/etc/cdi", "/var/run/cdi")
# the first Podman whose Docker-compatible service passes a CDI request on (podman#19338); older ones pass over it
PODMAN_SINCE = (5, 4)
# a spec of sixteen GPUs, by number and by UUID, is some 100 KB
MAX_SPEC_BYTES = 4 << 20

_GENERATE = "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"


@dataclass(frozen=True)
class GpuOffer:
    """What an engine says of GPUs. `folders` are those of its CDI specs, none where it has no CDI; `found` the CDI
    devices that it lists (Docker from 28.2 does; else None)."""

    engine: Literal["docker", "podman"]
    version: str
    folders: tuple[Path, ...] = ()
    found: frozenset[str] | None = None
    runtimes: frozenset[str] = frozenset()

    @classmethod
    def of(cls, info: Mapping[str, Any], engine: Literal["docker", "podman"]) -> GpuOffer:
        version = str(info.get("ServerVersion"))
        if engine == "podman":  # it lists every runtime it has heard of
            since = re.match(r"(\d+)\.(\d+)", version)
            able = since is not None and (int(since[1]), int(since[2])) >= PODMAN_SINCE
            return cls(engine, version, tuple(map(Path, PODMANS_FOLDERS)) if able else ())
        folders = tuple(Path(text) for text in info.get("CDISpecDirs") or ())
        listed = info.get("DiscoveredDevices")
        found = None if listed is None else frozenset(str(each.get("ID")) for each in listed)
        return cls(engine, version, folders, found, frozenset(info.get("Runtimes") or ()))

    def lacks(self, gpus: Sequence[str]) -> tuple[str, ...]:
        """Which of these GPUs CDI certainly does not know here. What nobody may look up counts as known: the engine
        says so at the start."""
        if self.found is not None:
            return tuple(gpu for gpu in gpus if f"{KIND}={gpu}" not in self.found)
        specs = [text for _, text in self._specs()]
        if None in specs:
            return ()
        return tuple(gpu for gpu in gpus if not any(_names(text or b"", gpu) for text in specs))

    def specs_digest(self) -> str:
        """Hex SHA-256 over the CDI specs: what they bring into a container stands in no inspect of Docker's."""
        digest = hashlib.sha256()
        for path, text in self._specs():
            digest.update(f"{path}\0{'' if text is None else hashlib.sha256(text).hexdigest()}\0".encode())
        return digest.hexdigest()

    def _specs(self) -> Iterator[tuple[Path, bytes | None]]:
        """Every CDI spec and its text; None where this process cannot read it whole."""
        for folder in self.folders:
            try:
                paths = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".yaml"))
            except FileNotFoundError:
                continue
            except OSError:
                yield folder, None
                continue
            for path in paths:
                try:
                    with path.open("rb") as file:
                        text = file.read(MAX_SPEC_BYTES)
                except OSError:
                    text = b""
                yield path, text if 0 < len(text) < MAX_SPEC_BYTES else None


def decide(offer: GpuOffer, gpus: Sequence[str], runtime: str) -> Way:
    """How these GPUs are asked for, where containers run on `runtime` ("": the engine's own).

    1. On gVisor's kernel no job has a GPU.
    2. Where every container runs on NVIDIA's runtime, that gives them: asked for by CDI too, they would come twice.
    3. By CDI, if the engine has it and knows them.
    4. By NVIDIA's runtime in place of the engine's own; not in place of another wall that the site chose.

    Raises `Denied` (gpu_unavailable) where this engine can give them by neither; its hint is the cure.
    """
    if runtime.startswith("runsc"):  # (1)
        raise _unavailable("a job on gVisor's kernel has no GPU", 'take runtime = "runsc" out of [engine], or the GPUs')
    if runtime == RUNTIME and RUNTIME in offer.runtimes:  # (2)
        return "nvidia"
    lacking = offer.lacks(gpus)
    if offer.folders and not lacking:  # (3)
        return "cdi"
    if RUNTIME in offer.runtimes and not runtime:  # (4)
        return "nvidia"
    if offer.folders:
        raise _unavailable(
            f"no CDI spec of this engine names {lacking[0]}", f"after every change of the driver: {_GENERATE}"
        )
    if offer.engine == "podman":
        first = ".".join(map(str, PODMAN_SINCE))
        raise _unavailable(
            f"Podman {offer.version} passes over a request for GPUs", f"Podman {first} or newer, or Docker"
        )
    beside = f" beside the runtime {runtime}" if runtime else ""
    raise _unavailable(
        f"Docker {offer.version} has neither CDI nor NVIDIA's runtime{beside}",
        f'Docker 25 or newer: {{"features": {{"cdi": true}}}} in daemon.json, then {_GENERATE}',
    )


def nodes(gpus: Sequence[str]) -> tuple[int, int]:
    """How many `/dev/nvidia<number>` a container with these has at least and at most. Slices of one GPU share its."""
    whole = sum(gpu.startswith("GPU-") for gpu in gpus)
    return whole or min(1, len(gpus)), len(gpus)


def _names(text: bytes, gpu: str) -> bool:
    # a UUID stands nowhere by chance, so YAML and JSON need not be told apart
    return re.search(rb"(?<![\w/-])" + re.escape(gpu.encode()) + rb"(?![\w/-])", text) is not None


def _unavailable(why: str, hint: str) -> Denied:
    return Denied(Reason(Code.GPU_UNAVAILABLE, why), hint=hint)
