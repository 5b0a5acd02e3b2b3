"""What a machine of ours needs: memory by process, at rest, importing and in a round; disk by file.

    python -m tests.bench.sizing [--json FILE]

A hub and two hospitals on this machine, by the `cloister` command, on the real engine. Memory is PSS (`tests.bench.
footprint`), looked at five times a second where a peak is wanted. A model's factor is what the peak grows by for each
byte that a larger model has more. The rows are printed as they stand in deploy/docs/install.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.uid import generate_uid
from safetensors.numpy import save_file

from tests.bench.footprint import processes, pss_mb
from tests.bench.slices import series
from tests.containers.bench import ENGINE_URL, image_id
from tests.end_to_end.commands import cloister
from tests.end_to_end.hospital import Hospital
from tests.end_to_end.house import MISBEHAVIOUR, ROGUE, House, Job
from tests.end_to_end.hub import Hub
from tests.end_to_end.machine import AS_ROOT, UID_BASE, descendants, give, public
from tests.federation.ground import found
from tests.federation.test_models import through

SITES = 2
SLICES = 60
SMALL_MB, LARGE_MB = 8, 56  # a permit of the tests' lets a task write 64 MiB
MB = 1_000_000
_EVERY_S = 0.2

Look = Callable[[], dict[str, float]]


def of_node(node: Hospital) -> dict[str, float]:
    """PSS in MB by process of the table; the largest worker of an import, with the processes below it, by itself."""
    pids = processes(node)
    workers = [
        {pid, *descendants(pid)}
        for pid in descendants(pids["intake"][0])
        if b"spawn_main" in text(Path(f"/proc/{pid}/cmdline"))
    ]
    found = {
        role: sum(mb(pid) for pid in each if not any(pid in its for its in workers)) for role, each in pids.items()
    }
    return found | ({"import worker": max(sum(map(mb, its)) for its in workers)} if workers else {})


def of_hub(hub: Hub) -> dict[str, float]:
    assert hub.process is not None
    return by_pid(hub.process.pid)()


def by_pid(pid: int) -> Look:
    """PSS in MB of a hub's own process, and of Flower's below it."""
    return lambda: {"hub": mb(pid), "superlink": sum(mb(each) for each in descendants(pid))}


def of_engine(site: str) -> dict[str, float]:
    """What the engine itself takes for a container of a site's: its shim."""
    import docker

    api = docker.APIClient(ENGINE_URL)
    ours = [
        each["Id"]
        for each in api.containers(filters={"label": "cloister.site"})
        if each["Labels"]["cloister.site"].startswith(f"{site}.")
    ]
    found = [
        mb(int(entry.parent.name))
        for entry in Path("/proc").glob("[0-9]*/cmdline")
        if b"containerd-shim" in (words := text(entry)) and any(each.encode() in words for each in ours)
    ]
    return {"container": sum(found) / len(found)} if found else {}


def text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def mb(pid: int) -> float:
    try:
        return pss_mb(pid)
    except (OSError, StopIteration):
        return 0.0  # it has just ended


@contextmanager
def peaks(*looks: Look) -> Iterator[dict[str, float]]:
    """The most of each while the block runs."""
    found: dict[str, float] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_EVERY_S):
            for look in looks:
                for name, value in look().items():
                    found[name] = max(found.get(name, 0.0), value)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield found
    finally:
        ended.set()
        watching.join()


def hub_alone() -> dict[str, float]:
    """A hub that nobody is enrolled at."""
    root = Path(tempfile.mkdtemp(prefix="cl-", dir="/var/tmp"))
    root.chmod(0o755)
    hub = Hub(root / "hub", UID_BASE if AS_ROOT else None)
    try:
        cloister("keys", "new", root / "committee.key")
        hub.install(public(root / "committee.key"))
        hub.serve()
        time.sleep(5.0)
        return of_hub(hub)
    finally:
        hub.stop()
        shutil.rmtree(root, ignore_errors=True)


def size(path: Path) -> tuple[int, int]:
    """Bytes as they lie on the disk, and files; what goes away meanwhile is left out."""
    found = []
    for each in path.rglob("*"):
        with suppress(FileNotFoundError):
            if each.is_file() and not each.is_symlink():
                found.append(each.stat().st_blocks * 512)
    return sum(found), len(found)


def imported(node: Hospital) -> dict[str, float]:
    """One series of CT (512 x 512, 16 bit), imported: peaks, and what its dataset takes on the disk."""
    shutil.rmtree(node.source)
    node.source.mkdir()
    random = np.random.default_rng(1)
    for number, content in enumerate(series(SLICES, random, generate_uid)):
        (node.source / f"{number:05d}.dcm").write_bytes(content)
    for path in (node.source, *node.source.rglob("*")):
        give(path, node.uids["intake"])
    before, given = size(node.state), size(node.source)
    with peaks(lambda: of_node(node), lambda: {"state_kb": size(node.state)[0] / 1000}) as most:
        node.run("ingest", node.source, "--project", "sizing", "--dataset", "sizing", "--json")
    after = size(node.state)
    return most | {
        "file_kb": given[0] / given[1] / 1000,
        "state_per_file_kb": (after[0] - before[0]) / SLICES / 1000,
        "most_per_file_kb": (most["state_kb"] - before[0] / 1000) / SLICES,
    }


def job(house: House, megabytes: int) -> Job:
    """A model of so many bytes, which goes back as it came."""
    arrays = {"weight": np.ones((megabytes, MB // 4), np.float32)}
    path = house.root / f"model-{megabytes}.safetensors"
    save_file(arrays, path)
    path.chmod(0o644)
    tensors = tuple({"name": name, "shape": list(each.shape), "dtype": "F32"} for name, each in arrays.items())
    return Job(image_id(ROGUE), path, tensors, MISBEHAVIOUR)


def round_of(house: House, megabytes: int) -> dict[str, float]:
    """The peaks of one round with a model of this size: the first hospital's processes, the hub's, a container's."""
    node = house.hospitals[0]
    asked = job(house, megabytes)
    resources = house.draft("x", asked)["resources"] | {"out_bytes": 512 << 20}
    permit = house.grant(
        f"sized-{megabytes}", asked, *house.hospitals, resources=resources, byte_budget=4 * LARGE_MB * MB
    )
    with peaks(lambda: of_node(node), lambda: of_engine(node.site)) as most:
        run = house.begin(f"run-{megabytes}-{secrets.token_hex(2)}", permit, *house.hospitals, misbehave="none")
        history = house.hub.ended(run, within_s=280)
    assert history["state"] == "done", history
    return most


def hub_round(megabytes: int) -> dict[str, float]:
    """The peaks of the hub's processes in a round with a model of this size; the sites have a core of the tests'."""
    root = Path(tempfile.mkdtemp(prefix="cl-", dir="/var/tmp"))
    town = found(root)
    model = {"weight": np.ones((megabytes, MB // 4), np.float32)}
    try:
        town.start()
        assert town.process is not None
        look = by_pid(town.process.pid)
        with peaks(look) as most:
            asyncio.run(through(town, f"sized-{megabytes}", model, 1, timeout_s=600.0))
    finally:
        town.stop()
        town.hub.close()
        shutil.rmtree(root, ignore_errors=True)
    return most


def at_hospitals(told: dict[str, Any], keep: Callable[[dict[str, Any]], None]) -> None:
    """What needs the engine: nodes at rest, an import, rounds with a small and a large model."""
    house = House.build(SITES)
    try:
        time.sleep(10.0)
        told |= {"node idle": of_node(house.hospitals[0]), "hub with sites": of_hub(house.hub)}
        keep(told)
        told["import"] = imported(house.hospitals[0])
        keep(told)
        small, large = round_of(house, SMALL_MB), round_of(house, LARGE_MB)
    finally:
        house.close()
    told["round small"] = small
    told["factors"] |= factors(small, large, "core", "link")
    keep(told)


def factors(small: dict[str, float], large: dict[str, float], *names: str) -> dict[str, float]:
    return {name: (large[name] - small[name]) / (LARGE_MB - SMALL_MB) for name in names}


def measure(keep: Callable[[dict[str, Any]], None], *, engine: bool) -> dict[str, Any]:
    """Every figure; `keep` is given what there is so far, each time that there is more."""
    told: dict[str, Any] = {"sites": SITES, "hub alone": hub_alone()}
    told["factors"] = factors(hub_round(SMALL_MB), hub_round(LARGE_MB), "hub", "superlink")
    keep(told)
    if engine:
        at_hospitals(told, keep)
    return told


def rows(told: dict[str, Any]) -> list[str]:
    """As they stand in the manual: of what was measured."""
    lines, by, alone, sites = [], told["factors"], sum(told["hub alone"].values()), told["sites"]
    if idle := told.get("node idle"):
        each = ", ".join(f"{name} {idle[name]:.0f}" for name in sorted(idle))
        lines.append(f"| a node at rest | {sum(idle.values()):.0f} MB: {each} |")
    if took := told.get("import"):
        lines.append(f"| each worker of an import beside it | {took['import worker']:.0f} MB, CT of 512 x 512 |")
        most, kept = (took[f"{name}_per_file_kb"] / took["file_kb"] for name in ("most", "state"))
        lines.append(f"| disk for each byte of what is imported | {most:.1f} at the height, {kept:.1f} afterwards |")
    if small := told.get("round small"):
        lines.append(f"| each container beside what its permit grants | {small['container']:.0f} MB of the engine's |")
        lines.append(f"| each byte of a model at a node | core {by['core']:.1f}, link {by['link']:.1f} bytes |")
    lines.append(f"| a hub at rest | {alone:.0f} MB |")
    if "hub with sites" in told:
        more = (sum(told["hub with sites"].values()) - alone) / sites
        lines.append(f"| each site that is connected | {more:.1f} MB |")
    lines.append(
        f"| each byte of a model at a hub, {sites} sites | hub {by['hub']:.1f}, Flower {by['superlink']:.1f} bytes |"
    )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sizing", description=__doc__)
    parser.add_argument("--hub", action="store_true", help="what needs no container engine")
    parser.add_argument("--json", type=Path, help="write every figure")
    given = parser.parse_args()
    os.environ.setdefault("DOCKER_HOST", ENGINE_URL)

    def keep(told: dict[str, Any]) -> None:
        if given.json:
            given.json.write_text(json.dumps(told, indent=1) + "\n")

    told = measure(keep, engine=not given.hub)
    print("| what | measured |\n|---|---|")
    print("\n".join(rows(told)))


if __name__ == "__main__":
    main()
