"""NVIDIA's driver and toolkit without a GPU: a CDI spec, a container runtime and `nvidia-smi` whose cards are made up.

Each card's device node is the machine's /dev/null under the card's name. What they say and take is what the real ones
do (nvidia-container-toolkit 1.20.0 and driver 580 on an H100): the engines cannot tell the difference, a driver could.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CARDS = tuple(f"GPU-{number:08x}-0000-4000-8000-00000000cafe" for number in range(3))

# What `nvidia-container-runtime` does in its mode jit-cdi, as far as nodes go: those of NVIDIA_VISIBLE_DEVICES, which
# is `void` inside; then runc.
_RUNTIME = """#!/usr/bin/env python3
import json, os, sys
CARDS = {cards!r}
if "create" in sys.argv:
    path = os.path.join(sys.argv[sys.argv.index("--bundle") + 1], "config.json")
    with open(path) as file:
        spec = json.load(file)
    env = dict(entry.split("=", 1) for entry in spec["process"]["env"])
    asked = [name for name in env.get("NVIDIA_VISIBLE_DEVICES", "void").split(",") if name not in ("", "void", "none")]
    if asked:
        names = ["nvidiactl"] + ["nvidia%d" % CARDS.index(each) for each in asked]  # a card that is not there ends it
        spec["linux"].setdefault("devices", []).extend(
            {{"path": "/dev/" + name, "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 0, "gid": 0}}
            for name in names
        )
        spec["process"]["env"].append("NVIDIA_VISIBLE_DEVICES=void")
        with open(path, "w") as file:
            json.dump(spec, file)
os.execvp("runc", ["runc", *sys.argv[1:]])
"""


def cdi_spec(cards: Sequence[str] = CARDS, *, more: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
    """A CDI spec as `nvidia-ctk cdi generate` writes one. `more`: further nodes that a card brings in."""
    return {
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "devices": [
            {
                "name": card,
                "containerEdits": {"deviceNodes": _nodes(f"/dev/nvidia{number}", *(more or {}).get(card, ()))},
            }
            for number, card in enumerate(cards)
        ],
        "containerEdits": {"env": ["NVIDIA_VISIBLE_DEVICES=void"], "deviceNodes": _nodes("/dev/nvidiactl")},
    }


def _nodes(*paths: str) -> list[dict[str, str]]:
    return [{"path": path, "hostPath": "/dev/null"} for path in paths]


def write_spec(folder: Path, spec: Mapping[str, Any]) -> Path:
    """Write (or write anew) a CDI spec into an engine's folder of them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "made-up-cards.json"
    path.write_text(json.dumps(spec))
    return path


def toolkit(folder: Path) -> Path:
    """Write the programs of the toolkit: the runtime's path. dockerd must find the hook in its PATH, or it takes no
    request for GPUs; the real runtime drops it again."""
    folder.mkdir(parents=True, exist_ok=True)
    runtime = _program(folder / "nvidia-container-runtime", _RUNTIME.format(cards=list(CARDS)))
    _program(folder / "nvidia-container-runtime-hook", "#!/bin/sh\nexit 0\n")
    return runtime


def nvidia_smi(folder: Path, memory_mib: Mapping[str, int]) -> Path:
    """Write an `nvidia-smi` that answers `--query-gpu=uuid,memory.total --format=csv,noheader,nounits`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{uuid}, {mib}\n" for uuid, mib in memory_mib.items())
    return _program(folder / "nvidia-smi", f"#!/bin/sh\ncat <<'END'\n{lines}END\n")


def _program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path
