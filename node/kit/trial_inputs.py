"""What a trial begins with where the researcher gives none: a model and a configuration, out of the permit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mediator import tensors
from mediator.types import ConfigField, Dtype, TensorSpec

# as small as initial weights usually are, and not 0: a network of zeros learns nothing
_SPREAD = 0.1
# what torch and Keras call a batch norm's running variance: below 0 its root is no number
_VARIANCES = ("running_var", "moving_variance")
_NUMPY = {Dtype.F32: np.float32, Dtype.F64: np.float64, Dtype.I32: np.int32, Dtype.I64: np.int64}


def random_model(specs: Sequence[TensorSpec], seed: int = 0) -> bytes:
    """A safetensors file of these tensors, in this order: floats normal with deviation 0.1, a batch norm's running
    variance 1, integers 0. Equal for equal seeds."""
    random = np.random.default_rng(seed)
    arrays = {}
    for spec in specs:
        kind = _NUMPY[spec.dtype]
        if not np.issubdtype(kind, np.floating):
            values = np.zeros(spec.shape)
        elif spec.name.endswith(_VARIANCES):
            values = np.ones(spec.shape)
        else:
            values = np.asarray(random.normal(0.0, _SPREAD, spec.shape))
        arrays[spec.name] = values.astype(kind)
    return tensors.encode(arrays)


def least_config(fields: Sequence[ConfigField]) -> dict[str, Any]:
    """The least that a permit's configuration allows: numbers at their minimum, false, the first choice."""
    return {field.name: _least(field) for field in fields}


def _least(field: ConfigField) -> Any:
    if field.type == "str":
        return field.choices[0]
    if field.type == "bool":
        return False
    assert field.minimum is not None  # ConfigField's own rule
    return int(field.minimum) if field.type == "int" else float(field.minimum)
