"""The untrained model of a job, for the committee's permit and the hub's first round; made without data.

    from cloister_job.initial import offer_initial

    offer_initial(lambda: Net().state_dict())

Any language can do the same: a program that is started as `… --initial FOLDER` writes `FOLDER/initial.safetensors`,
and `FOLDER/tensors.json` where the order of its tensors matters ([{"name": …, "shape": […], "dtype": "F32"}, …]), and
ends with status 0. `cloister job init-model` starts it so, at home, without data and without a network.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

OPTION = "--initial"
# as safetensors spells the types that a permit can name; any other is told to the person at the keyboard by its name
_DTYPES = {"float32": "F32", "float64": "F64", "int32": "I32", "int64": "I64"}


def offer_initial(
    make: Callable[[], Mapping[str, Any] | Sequence[Any]], arguments: Sequence[str] | None = None
) -> None:
    """Write what `make` gives and end this program, where that is what it was started for; otherwise do nothing.

    `make` gives arrays or torch tensors by name, in the order of the permit; a list of them is named by number, as
    Flower does.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if OPTION not in given[:-1]:
        return
    write_initial(Path(given[given.index(OPTION) + 1]), make())
    sys.exit(0)


def write_initial(folder: Path, weights: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write `initial.safetensors` and `tensors.json` into `folder`."""
    named = weights if isinstance(weights, Mapping) else {str(number): each for number, each in enumerate(weights)}
    arrays = {name: _array(value) for name, value in named.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(arrays, folder / "initial.safetensors")
    listed = [
        {"name": name, "shape": list(array.shape), "dtype": _DTYPES.get(array.dtype.name, array.dtype.name)}
        for name, array in arrays.items()
    ]
    (folder / "tensors.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")


def _array(value: Any) -> Any:
    if hasattr(value, "detach"):  # a torch tensor, with or without its gradient
        value = value.detach().cpu().numpy()
    return np.array(value, order="C")  # a copy: two names of one tensor are two tensors of the permit
