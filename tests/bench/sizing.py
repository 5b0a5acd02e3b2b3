"""What a machine of ours needs: memory by process, at rest, importing and in a round; disk by file.

    python -m tests.bench.sizing [--json FILE]

A hub and two hospitals on this machine, by the `cloister` command, on the real engine. Memory is PSS (`tests.bench.
footprint`), looked at twenty times a second where a peak is wanted. A model's factor is what the peak grows by for each
byte that a larger model has more. The rows are printed as they stand in deploy/docs/install.md.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

SITES = 2
SLICES = 300
SMALL_MB, LARGE_MB = 8, 72
MB = 1_000_000
_EVERY_S = 0.05

Look = Callable[[], dict[str, float]]


def of_node(node: Hospital) -> dict[str, float]:
    """PSS in MB by process of the table; intake's largest worker by itself."""
    found: dict[str, float] = {}
    for role, pids in processes(node).items():
        each = [mb(pid) for pid in pids]
        found[role] = sum(each)
        if role == "intake" and len(each) > 1:
            found["import worker"] = max(each[1:])
    return found


def of_hub(hub: Hub) -> dict[str, float]:
    """PSS in MB of the hub's own process, and of Flower's below it."""
    assert hub.process is not None
    below = sum(mb(pid) for pid in descendants(hub.process.pid))
    return {"hub": mb(hub.process.pid), "superlink": below}


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
    """Bytes as they lie on the disk, and files."""
    files = [each.stat() for each in path.rglob("*") if each.is_file() and not each.is_symlink()]
    return sum(each.st_blocks * 512 for each in files), len(files)


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
    with peaks(lambda: of_node(node)) as most:
        node.run("ingest", node.source, "--project", "sizing", "--dataset", "sizing", "--json")
    after, kept = size(node.state), size(node.state / "datasets")
    return most | {
        "file_kb": given[0] / given[1] / 1000, "state_per_file_kb": (after[0] - before[0]) / SLICES / 1000,
        "datasets_files": kept[1],
    }  # fmt: skip


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
    with peaks(lambda: of_node(node), lambda: of_hub(house.hub), lambda: of_engine(node.site)) as most:
        run = house.begin(f"run-{megabytes}-{secrets.token_hex(2)}", permit, *house.hospitals, misbehave="none")
        history = house.hub.ended(run, within_s=280)
    assert history["state"] == "done", history
    return most


def measure(keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Every figure; `keep` is given what there is so far, each time that there is more."""
    found: dict[str, Any] = {"sites": SITES, "hub alone": hub_alone()}
    house = House.build(SITES)
    try:
        time.sleep(10.0)
        found |= {"node idle": of_node(house.hospitals[0]), "hub with sites": of_hub(house.hub)}
        keep(found)
        found["import"] = imported(house.hospitals[0])
        keep(found)
        small, large = round_of(house, SMALL_MB), round_of(house, LARGE_MB)
    finally:
        house.close()
    more = LARGE_MB - SMALL_MB
    factors = {name: (large[name] - small[name]) / more for name in ("core", "link", "hub", "superlink")}
    found |= {"round small": small, "round large": large, "factors": factors}
    keep(found)
    return found


def rows(found: dict[str, Any]) -> list[str]:
    """As they stand in the manual."""
    idle, took, factors = found["node idle"], found["import"], found["factors"]
    hub, alone = sum(found["hub with sites"].values()), sum(found["hub alone"].values())
    each = (hub - alone) / found["sites"]
    per_file, source = took["state_per_file_kb"], took["file_kb"]
    return [
        f"| a node at rest | {sum(idle.values()):.0f} MB: "
        + ", ".join(f"{name} {mb:.0f}" for name, mb in idle.items() if name != "import worker")
        + " |",
        f"| each worker of an import beside it (`[intake] workers`) | {took['import worker']:.0f} MB at most "
        "for CT of 512 x 512 |",
        f"| each container beside what its permit grants it | {found['round small']['container']:.0f} MB: "
        "the engine's own process for it |",
        f"| each byte of a model, in a round | core {factors['core']:.1f}, link {factors['link']:.1f} bytes |",
        f"| a hub at rest | {alone:.0f} MB, and {each:.1f} MB for each site that is connected |",
        f"| each byte of a model at the hub, with {found['sites']} sites | hub {factors['hub']:.1f}, Flower's "
        f"processes {factors['superlink']:.1f} bytes |",
        f"| disk of a node | {per_file:.0f} kB for a file of {source:.0f} kB ({per_file / source:.2f} of it), while "
        "the original is quarantined too |",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sizing", description=__doc__)
    parser.add_argument("--json", type=Path, help="write every figure")
    given = parser.parse_args()
    os.environ.setdefault("DOCKER_HOST", ENGINE_URL)

    def keep(found: dict[str, Any]) -> None:
        if given.json:
            given.json.write_text(json.dumps(found, indent=1) + "\n")

    found = measure(keep)
    print("| what | measured |\n|---|---|")
    print("\n".join(rows(found)))


if __name__ == "__main__":
    main()
