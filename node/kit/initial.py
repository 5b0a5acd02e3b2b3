"""The untrained model that an image makes, held against a draft permit, and the draft's tensors taken from it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mediator import canonical, tensors
from mediator.errors import CloisterError, UsageFault
from mediator.sizes import MAX_HEADER_BYTES
from mediator.types import Dtype, TensorSpec

MODEL, TENSORS = "initial.safetensors", "tensors.json"


def specs_of(files: Mapping[str, bytes]) -> tuple[TensorSpec, ...]:
    """The tensors of the model in `files`, in the order that `tensors.json` gives.

    Without that file: in the order of their numbers where all names are numbers, else as the header lists them, which
    is how safetensors' writers sort them. Raises `UsageFault` for what no permit can name.
    """
    header = _header(files[MODEL])
    try:
        specs = {name: _spec(name, entry) for name, entry in header.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise UsageFault(
            "the image's untrained model has a tensor that no permit can name",
            hint=f"types are {', '.join(Dtype)}; at most 8 dimensions, each at least 1",
        ) from error
    names = _listed(files[TENSORS]) if TENSORS in files else _sorted(list(specs))
    if sorted(names) != sorted(specs):
        raise UsageFault(f"the image's {TENSORS} names other tensors than its {MODEL}")
    return tuple(specs[name] for name in names)


def ordered(model: bytes, specs: Sequence[TensorSpec]) -> bytes:
    """The model as the hub takes it: exactly these tensors, in this order. Raises `Denied` with every reason."""
    parsed = tensors.parse(model, specs)
    return tensors.encode({spec.name: parsed[spec.name] for spec in specs})


def with_tensors(draft: str, specs: Sequence[TensorSpec]) -> str:
    """A draft permit (JSON) with these tensors; whatever else stands in it stays as it is written."""
    held = json.loads(draft)
    listed = [{"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype.value} for spec in specs]
    wanted = {**held, "tensors": listed}
    lines = ",\n  ".join(json.dumps(each) for each in listed)
    for found in re.finditer(r'"tensors"\s*:\s*', draft):
        _, end = json.JSONDecoder().raw_decode(draft, found.end())
        changed = f"{draft[: found.end()]}[\n  {lines}\n ]{draft[end:]}"
        try:
            if json.loads(changed) == wanted:  # and not a key of that name somewhere below
                return changed
        except ValueError:
            continue
    return json.dumps(wanted, indent=1) + "\n"


def _header(model: bytes) -> dict[str, Any]:
    length = int.from_bytes(model[:8], "little")
    if len(model) < 8 or length > MAX_HEADER_BYTES or 8 + length > len(model):
        raise UsageFault(f"the image's {MODEL} is no safetensors file")
    try:
        header = canonical.loads_foreign(model[8 : 8 + length].rstrip(b" "))
    except CloisterError as error:
        raise UsageFault(f"the image's {MODEL} is no safetensors file") from error
    if not isinstance(header, dict) or not header:
        raise UsageFault(f"the image's {MODEL} holds no tensors")
    return header


def _spec(name: str, entry: Any) -> TensorSpec:
    return TensorSpec(name, tuple(int(side) for side in entry["shape"]), Dtype(entry["dtype"]))


def _listed(raw: bytes) -> list[str]:
    try:
        return [str(each["name"]) for each in json.loads(raw)]
    except (KeyError, TypeError, ValueError) as error:
        raise UsageFault(f"the image's {TENSORS} is not a list of tensors") from error


def _sorted(names: list[str]) -> list[str]:
    return sorted(names, key=int) if all(name.isascii() and name.isdigit() for name in names) else names
