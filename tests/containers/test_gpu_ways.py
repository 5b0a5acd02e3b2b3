"""By which way an engine gives its GPUs, from what it says of itself. No engine needed."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from containers import gpu
from mediator.errors import Code, Denied
from tests.sim import nvidia
from tests.sim.nvidia import CARDS

OTHER = "GPU-ffffffff-0000-4000-8000-00000000cafe"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    nvidia.write_spec(tmp_path / "cdi", nvidia.cdi_spec())
    return tmp_path / "cdi"


def docker(*, cdi: Path | None = None, runtimes: tuple[str, ...] = ("runc",), **more: Any) -> gpu.GpuOffer:
    folders = [str(cdi), "/nonexistent/cdi"] if cdi else []
    runtime = {name: {"path": name} for name in runtimes}
    return gpu.GpuOffer.of({"ServerVersion": "26.1.5", "CDISpecDirs": folders, "Runtimes": runtime, **more}, "docker")


def chosen(offer: gpu.GpuOffer, gpus: tuple[str, ...], runtime: str) -> str:
    try:
        return gpu.decide(offer, gpus, runtime)
    except Denied as denied:
        assert [reason.code for reason in denied.reasons] == [Code.GPU_UNAVAILABLE]
        assert denied.reasons[0].detail and denied.hint
        return "refused"


def test_the_whole_table(folder: Path) -> None:
    """Whether the engine has CDI, knows the card by it, has NVIDIA's runtime; and what `[engine] runtime` is."""
    table = {}
    for cdi, known, toolkit, runtime in itertools.product((1, 0), (1, 0), (1, 0), ("", "nvidia", "crun", "runsc")):
        runtimes = ("runc", "crun", "runsc", *(("nvidia",) if toolkit else ()))
        offer = docker(cdi=folder if cdi else None, runtimes=runtimes)
        table[cdi, known, toolkit, runtime] = chosen(offer, (CARDS[0] if known else OTHER,), runtime)
    expected = dict.fromkeys(table, "refused")
    expected |= {(1, 1, toolkit, runtime): "cdi" for toolkit in (0, 1) for runtime in ("", "crun")}
    expected |= {(1, 1, 0, "nvidia"): "cdi"}  # the engine will say that it has no such runtime
    expected |= {(cdi, known, 1, "nvidia"): "nvidia" for cdi in (0, 1) for known in (0, 1)}
    expected |= {(1, 0, 1, ""): "nvidia", (0, 1, 1, ""): "nvidia", (0, 0, 1, ""): "nvidia"}
    assert table == expected


def test_every_card_must_be_known(folder: Path) -> None:
    assert chosen(docker(cdi=folder), CARDS, "") == "cdi"
    assert chosen(docker(cdi=folder), (*CARDS, OTHER), "") == "refused"


def test_what_the_engine_lists_counts_before_what_lies_in_its_folders(folder: Path) -> None:
    """Docker from 28.2 says which devices it has read, and has CDI on even where nobody ever wrote a spec."""
    listed = [{"Source": "cdi", "ID": f"nvidia.com/gpu={OTHER}"}, {"Source": "cdi", "ID": "vendor.com/device=0"}]
    offer = docker(cdi=folder, DiscoveredDevices=listed)
    assert chosen(offer, (OTHER,), "") == "cdi"
    assert chosen(offer, (CARDS[0],), "") == "refused"
    assert chosen(docker(cdi=folder, runtimes=("runc", "nvidia"), DiscoveredDevices=[]), CARDS, "") == "nvidia"


@pytest.mark.parametrize(
    "text",
    [
        f"devices:\n  - name: {CARDS[0]}\n", f'devices:\n  - name: "{CARDS[0]}"\n', f'{{"name":"{CARDS[0]}"}}',
        f"- containerEdits: {{}}\n  name: '{CARDS[0]}'\n", f"{{name: {CARDS[0]}, containerEdits: {{}}}}",
    ],
)  # fmt: skip
def test_a_spec_names_a_card_in_yaml_and_in_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "nvidia.yaml").write_text(text)
    assert docker(cdi=tmp_path).lacks((CARDS[0],)) == ()


@pytest.mark.parametrize("near", [f"{CARDS[0]}0", f"MIG-{CARDS[0]}/1/0", f"{CARDS[0]}/1/0", CARDS[0][:-1], "all"])
def test_a_card_that_is_nearly_named_is_not(tmp_path: Path, near: str) -> None:
    (tmp_path / "nvidia.json").write_text(json.dumps({"devices": [{"name": near}]}))
    (tmp_path / "nvidia.yaml.old").write_text(CARDS[0])
    assert docker(cdi=tmp_path).lacks((CARDS[0],)) == (CARDS[0],)


def test_a_spec_that_cannot_be_read_rules_nothing_out(tmp_path: Path) -> None:
    (tmp_path / "nvidia.yaml").mkdir()  # whoever the tests run as, this cannot be read as a file
    assert docker(cdi=tmp_path).lacks((OTHER,)) == ()
    assert chosen(docker(cdi=tmp_path), (OTHER,), "") == "cdi"


@pytest.mark.parametrize(
    ("version", "able"),
    [("4.3.1", False), ("5.3.2", False), ("5.4.0", True), ("5.4.2", True), ("5.10.0", True), ("6.0.0-rc1", True),
     ("unknown", False)],
)  # fmt: skip
def test_podman_gives_gpus_from_5_4_on_and_by_cdi_alone(version: str, able: bool) -> None:
    """It lists every runtime it has heard of, NVIDIA's too where containers.conf names it."""
    offer = gpu.GpuOffer.of({"ServerVersion": version, "Runtimes": {"runc": {}, "nvidia": {}}}, "podman")
    assert (bool(offer.folders), offer.runtimes) == (able, frozenset())
    if not able:
        assert chosen(offer, CARDS[:1], "") == "refused"


def test_the_digest_follows_every_spec(folder: Path) -> None:
    offer = docker(cdi=folder)
    first = offer.specs_digest()
    assert offer.specs_digest() == first
    (folder / "more.yaml").write_text("cdiVersion: 0.5.0\n")
    second = offer.specs_digest()
    (folder / "notes.txt").write_text("no spec")
    assert offer.specs_digest() == second != first


@pytest.mark.parametrize(
    ("gpus", "bounds"),
    [((), (0, 0)), (("GPU-a",), (1, 1)), (("GPU-a", "GPU-b"), (2, 2)), (("MIG-a", "MIG-b"), (1, 2)),
     (("GPU-a", "MIG-b", "MIG-c"), (1, 3))],
)  # fmt: skip
def test_how_many_nodes_there_are(gpus: tuple[str, ...], bounds: tuple[int, int]) -> None:
    assert gpu.nodes(gpus) == bounds
