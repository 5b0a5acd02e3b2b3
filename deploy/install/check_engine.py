"""The container engine, whose it is, and the GPUs that it can give: what the table says of them.

Each row is (what, state, detail, cure).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

from . import layout
from .engine import CLASSIC_CURE, configured_engine, find_engine, has_classic_store, kept_for_others
from .engine_kinds import EngineKind, Row, kind_of, others, rootless
from .gpus import has_driver, listed, ways
from .machine import Machine

# where Podman looks for its helpers (containers.conf(5), helper_binaries_dir)
_HELPERS = ("/usr/local/libexec", "/usr/local/lib", "/usr/libexec", "/usr/lib")
_OLDEST = {"docker": (20, 10), "podman": (4, 3)}


def engine(machine: Machine, named: str | None, brings: tuple[str, ...], offline: bool = False) -> Iterator[Row]:
    """The one that the node asks: a configuration that is there is kept, whatever else answers."""
    configured = configured_engine(machine)
    if configured and not configured.startswith("unix:///"):
        yield ("engine", "unknown", f"{configured} is not asked from here", "cloister node canary asks it")
        return
    url = configured or named or find_engine(machine)
    kind = kind_of(machine, url) if url else None
    if url and kind:
        yield from _answers(machine, url, kind)
    elif configured:
        cure = f"start it, or name another in {layout.configuration('node')}"
        yield ("engine", "failed", f"none answers at {configured}", cure)
    elif brings and (folder := kept_for_others(machine)):
        cure = "start the engine that they are of, and name its socket (--engine); or move the folder away"
        yield ("engine", "failed", f"none answers, and {folder} holds what another engine keeps", cure)
    elif brings:
        yield ("engine", "ok", f"none yet; the bundle brings {', '.join(brings)}", "")
    elif not url and (somebodys := others(machine)):
        yield ("engine", "failed", "none answers but one of a user's own", f"is it for jobs? --engine {somebodys}")
    else:
        where = f"none answers at {url}" if url else "none answers"
        cure = "apt-get install docker.io (or podman), or name its socket: --engine"
        yield ("engine", "failed", where, cure if offline else f"{cure}; or name a bundle that brings one: --bundle")


def _answers(machine: Machine, url: str, kind: EngineKind) -> Iterator[Row]:
    detail = f"{kind.name} {kind.version}{' rootless' if kind.rootless else ''} at {url}"
    if kind.numbers < _OLDEST[kind.name]:
        yield ("engine", "failed", detail, f"at least {kind.name} {'.'.join(map(str, _OLDEST[kind.name]))}")
        return
    if kind.name == "docker" and not has_classic_store(kind.info):
        yield ("engine", "failed", f"{detail}, with containerd's image store", CLASSIC_CURE)
        return
    if kind.name == "podman" and not _has_init(machine):
        yield ("engine", "failed", f"{detail} has no init for containers", "apt-get install catatonit")
        return
    yield ("engine", "ok", detail, "")
    yield from rootless(machine, kind)
    yield from _gpus(machine, kind)


def _has_init(machine: Machine) -> bool:
    """Every container of ours is asked for with an init in it, and Podman makes none without that program."""
    return "init_path" in machine.text("/etc/containers/containers.conf") or any(
        machine.at(f"{folder}/podman/catatonit").exists() for folder in _HELPERS
    )


def _gpus(machine: Machine, kind: EngineKind) -> Iterator[Row]:
    if not has_driver(machine):
        yield ("gpus", "ok", "none here; jobs compute on processors", "")
        return
    gpus, said = listed(machine)
    if not gpus:
        cure = "install a driver that fits, with nvidia-smi; without it the configuration names no GPU"
        yield ("gpus", "warning", f"the driver does not name them: {said}", cure)
        return
    given = ways(machine, gpus, kind.info, kind.name, _runtime(machine))
    there = ", ".join(f"{each.memory_bytes >> 30} GiB" for each in given.gpus)
    if not given.lacks:
        yield ("gpus", "ok", f"{len(gpus)}, {given.how} ({there})", "")
    else:
        yield ("gpus", "warning", f"{len(given.gpus)} of {len(gpus)} for jobs: {given.lacks}", given.cure)


def _runtime(machine: Machine) -> str:
    """The runtime that a configuration which is there puts every container on."""
    try:
        named = tomllib.loads(machine.text(layout.configuration("node")))["engine"]["runtime"]
    except (tomllib.TOMLDecodeError, KeyError, TypeError):
        return ""
    return named if isinstance(named, str) else ""
