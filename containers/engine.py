"""The container engine behind its socket: Docker, or Podman's Docker-compatible service. The only `import docker`.

Every call either does what it says, or raises `EngineUnavailable`; what an engine writes in its errors (paths, names)
goes no further. Nothing here decides anything: what to ask for is `containers.sandbox`'s.
"""

from __future__ import annotations

import math
import os
import platform
import re
import signal
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException
from docker.errors import NotFound as NotFound

from containers import gpu
from containers.lines import Lines
from containers.sandbox import JOB_LABEL, ROLE_LABEL, SITE_LABEL, SPEC_LABEL
from mediator.errors import Code, Denied, Ended, EngineUnavailable, Reason
from mediator.grammar import DIGEST

# An engine on a busy disk answers within seconds; one that took this long is not answering.
TIMEOUT_S = 30.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
BLOCK_BYTES = 1 << 20
_STDOUT = 1
_WHOLE = "does nvidia-smi answer, and is the CDI spec younger than the driver? cloister check says how GPUs are given"
# the processor as images name it
_MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
_DIGEST = re.compile(DIGEST)


@dataclass(frozen=True)
class Container:
    """One of our containers as the engine lists it, from its labels."""

    id: str
    site: str
    job: str
    role: str
    signed_spec: str


@dataclass(frozen=True)
class EngineImage:
    """What matters of an image before it may start: its id, the volumes it declares, whether it names a program,
    and whether that program is for this machine's processor."""

    id: str
    volumes: tuple[str, ...]
    has_program: bool
    runs_here: bool


@dataclass(frozen=True)
class EngineUsers:
    """How an engine's containers stand to the users of this machine.

    `rootless`: the engine is no root itself. `first`: the user and group that a container's 0 is outside, where
    dockerd remaps them (`userns-remap`), else (0, 0). `limited`: it can bound memory, processes and CPU at all; a
    rootless engine cannot on cgroup v1, and says so only in its log. `groups`: which groups of a container's are which
    outside, as (inside, outside, how many), where Podman tells it.
    """

    rootless: bool
    first: tuple[int, int]
    limited: bool
    groups: tuple[tuple[int, int, int], ...] = ()

    @property
    def namespace(self) -> bool:
        """Whether a container's root would be nobody outside."""
        return self.rootless or self.first != (0, 0)

    def group_outside(self, gid: int) -> int | None:
        """The number of a container's group on this machine; None where the engine does not tell."""
        if not self.rootless:
            return self.first[1] + gid
        found = (outside + gid - inside for inside, outside, count in self.groups if inside <= gid < inside + count)
        return next(found, None)

    def __str__(self) -> str:
        if self.rootless:
            return "rootless" if self.limited else "rootless without limits"
        return f"remapped from {self.first[0]}" if self.namespace else "the machine's own"


@dataclass(frozen=True)
class EngineOffer:
    """What an engine can give at all, by its own account: the users of its containers, processors, memory (0: it does
    not say), GPUs, and what confines its containers beside namespaces (`apparmor`, `selinux`, `seccomp`), and
    the folder that it keeps everything in."""

    users: EngineUsers
    cpus: int
    gpus: gpu.GpuOffer
    memory_bytes: int = 0
    security: tuple[str, ...] = ()
    folder: str = ""


class ContainerEngine:
    """One engine's socket, for example `unix:///run/docker.sock`. Connects at the first call."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._connected: Any = None

    @property
    def _api(self) -> Any:
        if self._connected is None:
            with _asking("answer"):
                self._connected = docker.APIClient(base_url=self._url, version="auto", timeout=self._timeout_s)
        return self._connected

    @cached_property
    def kind(self) -> Literal["docker", "podman"]:
        """Whose dialect it speaks. Podman names its own API; whatever else answers must do as Docker does."""
        with _asking("say what it is"):
            answer = self._api.get(f"{self._api.base_url}/_ping", timeout=self._timeout_s)
        return "podman" if "Libpod-Api-Version" in answer.headers else "docker"

    def users(self) -> EngineUsers:
        """Whether its containers live in a user namespace of their own, and if their limits are kept there."""
        return self.offer().users

    def offer(self) -> EngineOffer:
        """What it can give a container: asked anew each time, for drivers and runtimes come and go."""
        info = self._info()
        # engine and broker share a machine
        cpus = int(info.get("NCPU") or os.cpu_count() or 1)
        users = _users(info)
        if users.rootless and self.kind == "podman":
            users = replace(users, groups=self._podmans_groups())
        # Docker: `name=seccomp,profile=builtin`
        said = (option.split(",")[0].removeprefix("name=") for option in info.get("SecurityOptions") or [])
        return EngineOffer(
            users, cpus, gpu.GpuOffer.of(info, self.kind), int(info.get("MemTotal") or 0), tuple(sorted(said)),
            str(info.get("DockerRootDir") or ""),
        )  # fmt: skip

    def _podmans_groups(self) -> tuple[tuple[int, int, int], ...]:
        with _asking("describe itself"):
            answer = self._api.get(f"{self._api.base_url}/v4.0.0/libpod/info", timeout=self._timeout_s)
            answer.raise_for_status()
            listed = ((answer.json().get("host") or {}).get("idMappings") or {}).get("gidmap") or []
        return tuple((int(one["container_id"]), int(one["host_id"]), int(one["size"])) for one in listed)

    def _info(self) -> dict[str, Any]:
        with _asking("describe itself"):
            return dict(self._api.info())

    def facts(self, runtime: str) -> dict[str, str]:
        """What a sandbox fingerprint says about the engine: identity, version, start, runtime, kernel boot."""
        info = self._info()
        name = runtime or str(info.get("DefaultRuntime"))
        # Podman invents a new identity for each answer: its storage and machine are what stays
        same = f"podman {info.get('Name')} {info.get('DockerRootDir')}" if self.kind == "podman" else info.get("ID")
        return {
            "id": str(same),
            "version": str(info.get("ServerVersion")),
            "start": self._start(),
            "runtime": f"{name} {sorted((info.get('Runtimes') or {}).get(name, {}).items())}",
            "security": " ".join(sorted(info.get("SecurityOptions") or [])),
            "driver": f"{info.get('Driver')} {info.get('CgroupDriver')} {info.get('CgroupVersion')}",
            "users": str(_users(info)),
            "kernel": f"{info.get('KernelVersion')} {BOOT_ID.read_text().strip()}",
        }

    def _start(self) -> str:
        """When this engine started, as far as it shows: Docker makes its default network anew at each start; a
        service started by hand makes its socket anew."""
        with _asking("list its networks"):
            created = [entry.get("Created", "") for entry in self._api.networks(names=["bridge"])]
        path = self._url.removeprefix("unix://")
        state = os.stat(path) if os.path.exists(path) else None
        return f"{created[:1]} {(state.st_ino, state.st_ctime_ns) if state else ''}"

    # --- images -------------------------------------------------------------------------------------------------

    def image(self, digest: str) -> EngineImage | None:
        """The image with this id or repository digest, or None if the engine holds none."""
        if not _DIGEST.fullmatch(digest):  # a tag, or a part of an id, might find one too
            return None
        with _asking("look at an image"):
            try:
                found = self._api.inspect_image(digest)
            except NotFound:
                found = self._by_repository_digest(digest)
        if found is None:
            return None
        config = found.get("Config") or {}
        if found["Id"] != digest and not any(name.endswith(f"@{digest}") for name in found.get("RepoDigests") or []):
            return None
        program = bool(config.get("Entrypoint") or config.get("Cmd"))
        # engine and broker share a machine; an image that does not say is left to the engine
        runs_here = found.get("Architecture") in (None, "", _MACHINE)
        return EngineImage(found["Id"], tuple(sorted(config.get("Volumes") or {})), program, runs_here)

    def _by_repository_digest(self, digest: str) -> Any:
        for entry in self._api.images():
            if any(name.endswith(f"@{digest}") for name in entry.get("RepoDigests") or []):
                return self._api.inspect_image(entry["Id"])
        return None

    # --- containers ---------------------------------------------------------------------------------------------

    def containers(self, site: str, job: str | None = None) -> list[Container]:
        """This site's containers, of one job or of all, in any state. Only labels count, never names."""
        wanted = [f"{SITE_LABEL}={site}"] + ([f"{JOB_LABEL}={job}"] if job else [])
        with _asking("list containers"):
            found = self._api.containers(all=True, filters={"label": wanted})
        listed = [_container(entry["Id"], entry.get("Labels") or {}) for entry in found]
        # the filter is the engine's; a container is touched only if it says so itself
        return [one for one in listed if one.site == site and job in (None, one.job)]

    def create(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Make it; its id. Raises `Denied` (not_sealed) if this engine cannot: it lacks the runtime, or an option."""
        with _asking("create a container"):
            try:
                return str(self._api.create_container_from_config(dict(arguments), name)["Id"])
            except APIError as error:
                if error.status_code != 400:
                    raise
                raise Denied(Reason(Code.NOT_SEALED, "this engine cannot make a container so sealed")) from error

    def inspect(self, container: str) -> dict[str, Any] | None:
        """The engine's own account of a container, or None if there is none."""
        with _asking("look at a container"):
            try:
                found = dict(self._api.inspect_container(container))
                if self.kind == "podman":
                    found["Podman"] = self._podman(container)
                    # Podman 4 on cgroup v1 never says `OOMKilled`; SIGKILL by nobody we know is the kernel's
                    found["State"]["KilledByKernel"] = found["State"].get("ExitCode") == 128 + signal.SIGKILL
                return found
            except NotFound:
                return None

    def _podman(self, container: str) -> dict[str, Any]:
        """Podman's own inspect, which tells what Docker's form has no place for."""
        address = f"{self._api.base_url}/v4.0.0/libpod/containers/{container}/json"
        answer = self._api.get(address, timeout=self._timeout_s)
        if answer.status_code == 404:
            raise NotFound("gone")
        answer.raise_for_status()
        return dict(answer.json())

    def start(self, container: str, *, with_gpus: bool = False) -> None:
        """Start it; does nothing if it runs. Raises `Ended` if the image's program cannot be started here.

        `with_gpus`: it was made with GPUs. Whatever the engine then refuses counts as a refusal of these
        (gpu_unavailable): its words for a missing driver, hook or device are a missing program's or a broken engine's,
        and an image's own program is started by the engine's init, after the start.
        """
        with _asking("start a container"):
            try:
                self._api.start(container)
            except APIError as error:
                if with_gpus and not _disk_is_full(error):
                    why = "the engine could not start a container with the GPUs granted"
                    raise Denied(Reason(Code.GPU_UNAVAILABLE, why), hint=_WHOLE) from error
                if not error.is_client_error():
                    raise
                raise Ended(Reason(Code.JOB_FAILED, "the image's program cannot be started")) from error

    def freeze(self, container: str) -> bool:
        """Stop every process of it in its tracks. False if it has ended; afterwards none of it runs either way."""
        with _asking("freeze a container"):
            try:
                self._api.pause(container)
            except APIError:
                pass  # ended, or frozen already: the state that follows says which
        state = (self.inspect(container) or {}).get("State", {})
        if state.get("Running") and not state.get("Paused"):
            raise EngineUnavailable("the engine could not freeze a container")
        return bool(state.get("Paused"))

    def resume(self, container: str) -> None:
        with _asking("resume a container"):
            self._api.unpause(container)

    def stop(self, container: str, grace_s: float) -> None:
        """SIGTERM, then SIGKILL after `grace_s`. A frozen one hears nothing, so it is killed at once."""
        state = (self.inspect(container) or {}).get("State", {})
        if not state.get("Running"):
            return
        with _asking("stop a container"):
            try:
                if state.get("Paused"):
                    self._api.kill(container)
                else:
                    self._api.stop(container, timeout=max(0, math.ceil(grace_s)))
            except APIError as error:
                if error.status_code not in (404, 409):  # gone, or ended in between
                    raise

    def remove(self, container: str) -> None:
        with _asking("remove a container"):
            try:
                self._api.remove_container(container, force=True, v=True)
            except APIError as error:
                if error.status_code not in (404, 409):  # gone, or being removed
                    raise

    # --- volumes ------------------------------------------------------------------------------------------------

    def create_volume(self, arguments: Mapping[str, Any]) -> None:
        """Create it, or find it there with the same label and options. Raises `Denied` if it is another's."""
        with _asking("create a volume"):
            made = self._api.create_volume(
                arguments["Name"], arguments["Driver"], arguments["DriverOpts"], arguments["Labels"]
            )
        # Podman says the owner twice
        options = {key: value for key, value in (made.get("Options") or {}).items() if key not in ("UID", "GID")}
        if made.get("Labels") != arguments["Labels"] or options != arguments["DriverOpts"]:
            raise Denied(Reason(Code.NOT_SEALED, "the volume for /out"))

    def volumes(self, site: str) -> dict[str, str]:
        """This site's volumes: name → job."""
        with _asking("list volumes"):
            found = self._api.volumes(filters={"label": [f"{SITE_LABEL}={site}"]}).get("Volumes") or []
        labels = {entry["Name"]: entry.get("Labels") or {} for entry in found}
        return {name: label.get(JOB_LABEL, "") for name, label in labels.items() if label.get(SITE_LABEL) == site}

    def remove_volume(self, name: str) -> None:
        with _asking("remove a volume"):
            try:
                self._api.remove_volume(name)
            except NotFound:
                pass

    # --- what comes out -----------------------------------------------------------------------------------------

    def run(self, container: str, program: list[str], *, limit_bytes: int, timeout_s: float) -> tuple[int, bytes]:
        """Run a program in a running container: its exit status and at most `limit_bytes` of its standard output.

        Raises `Denied` (contract_violation) beyond either limit.
        """
        deadline = time.monotonic() + timeout_s
        with _asking("run a program in the keeper"):
            handle = self._api.exec_create(container, program, stdout=True, stderr=True, stdin=False)["Id"]
            stream = self._api.exec_start(handle, socket=True)
            try:
                # the SDK hands out the bare socket; bytes that came along with the headers wait in this buffer
                output = _read_stdout(stream._response.raw._fp.fp, limit_bytes, deadline)
            finally:
                stream.close()
            while (state := self._api.exec_inspect(handle))["Running"] and time.monotonic() < deadline:
                time.sleep(0.01)
        return int(state["ExitCode"] if state["ExitCode"] is not None else -1), output

    def follow(self, container: str, *, errors: bool = False, wait: bool = True) -> Lines:
        """The lines a container prints, from the first there still is; its standard error too with `errors`, and only
        what there is by now without `wait`."""
        with _asking("read a container's output"):
            stream = self._api.logs(container, stdout=True, stderr=errors, stream=True, follow=wait)
        return Lines(stream)


def _users(info: Mapping[str, Any]) -> EngineUsers:
    options = {part for text in info.get("SecurityOptions") or [] for part in str(text).split(",")}
    rootless = bool(info.get("Rootless")) or "name=rootless" in options
    # dockerd names the folder of a remapped engine after the first of its users and groups
    remapped = re.search(r"/([0-9]+)\.([0-9]+)$", str(info.get("DockerRootDir")))
    first = (int(remapped[1]), int(remapped[2])) if remapped and "name=userns" in options else (0, 0)
    limited = not rootless or (str(info.get("CgroupVersion")) == "2" and info.get("CgroupDriver") != "none")
    return EngineUsers(rootless, first, limited)


def _container(container: str, label: Mapping[str, str]) -> Container:
    keys = (SITE_LABEL, JOB_LABEL, ROLE_LABEL, SPEC_LABEL)
    return Container(container, *(label.get(key, "") for key in keys))


def _read_stdout(stream: Any, limit_bytes: int, deadline: float) -> bytes:
    """The standard output in the engine's multiplexed stream (8-byte header: stream, 3 zeros, length)."""
    output = bytearray()
    while header := _read_exactly(stream, 8, deadline):
        kind, length = struct.unpack(">BxxxL", header)
        # refused before it is read: the length is whatever stands there
        if len(output) + length > limit_bytes:
            raise Denied(Reason(Code.CONTRACT_VIOLATION, "more output than the volume holds"))
        piece = _read_exactly(stream, length, deadline)
        if kind == _STDOUT:
            output += piece
    return bytes(output)


def _read_exactly(stream: Any, length: int, deadline: float) -> bytes:
    """`length` bytes, or none at the end of the stream."""
    pieces: list[bytes] = []
    left = length
    while left:
        if time.monotonic() > deadline:
            raise Denied(Reason(Code.CONTRACT_VIOLATION, "the output could not be copied in time"))
        piece = stream.read(min(left, BLOCK_BYTES))
        if not piece:
            break
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _disk_is_full(error: APIError) -> bool:
    return "no space left on device" in str(error.explanation).lower()


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """The engine's seam: whatever it says in an error stays here, and the caller hears that it did not answer."""
    try:
        yield
    except APIError as error:
        if _disk_is_full(error):
            raise EngineUnavailable(
                f"the container engine could not {what}: its disk is full",
                hint="make room where the engine keeps its images and containers; what waits is tried again",
            ) from error
        raise EngineUnavailable(
            f"the container engine could not {what}", hint="see the engine's own log, then try again"
        ) from error
    except (DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise EngineUnavailable(
            f"the container engine did not {what}", hint="is it running, and may this user open its socket?"
        ) from error
