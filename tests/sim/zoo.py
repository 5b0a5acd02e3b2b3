"""Models as researchers bring them: a handful by name, and a family of any names, shapes, types and orders.

A model is a mapping from names to arrays in its own order, torch's `state_dict` order where the names are torch's.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from mediator.types import Dtype, TensorSpec

Model = Mapping[str, npt.NDArray[np.generic]]

_DTYPES = {"float32": Dtype.F32, "float64": Dtype.F64, "int32": Dtype.I32, "int64": Dtype.I64}


def specs_of(model: Model) -> tuple[TensorSpec, ...]:
    """The permit's tensors for this model, in its order."""
    return tuple(TensorSpec(name, array.shape, _DTYPES[array.dtype.name]) for name, array in model.items())


def filled(shape: tuple[int, ...], value: float, dtype: type[np.generic] = np.float32) -> npt.NDArray[np.generic]:
    return np.full(shape, value, dtype)


def scalars() -> Model:
    """0-d of every type, beside a vector of one."""
    return {
        "temperature": filled((), 0.5),
        "steps": filled((), 7, np.int64),
        "bias": filled((1,), 2),
        "epoch": filled((), 3, np.int32),
        "sum": filled((), 1e300, np.float64),
    }


def batch_norm() -> Model:
    """A convolution and a batch norm, as torch names and orders them."""
    return {
        "conv.weight": filled((4, 1, 3, 3), 0.25),
        "conv.bias": filled((4,), 0.5),
        "bn.weight": filled((4,), 1),
        "bn.bias": filled((4,), 2),
        "bn.running_mean": filled((4,), 3),
        "bn.running_var": filled((4,), 4),
        "bn.num_batches_tracked": filled((), 7, np.int64),
        "head.weight": filled((1, 4), 5),
    }


def listed(count: int = 12) -> Model:
    """Arrays of equal shape, named by their places: exchanged, nothing would notice."""
    return {str(place): filled((3, 3), place) for place in range(count)}


def tied() -> Model:
    """Two names of one tensor, both in the state dict: the bytes are the same, so the Flower objects are, too."""
    shared = filled((5, 2), 0.75)
    return {"embed.weight": shared, "body.weight": filled((2, 2), 1), "decoder.weight": shared}


def dense(count: int = 727) -> Model:
    """As many tensors as DenseNet-121's state dict, named and ordered as torch does: batch norms before convolutions,
    layer 10 after layer 9."""
    model: dict[str, npt.NDArray[np.generic]] = {}
    layer = 0
    while len(model) < count:
        layer += 1
        at = f"features.denseblock{1 + layer // 40}.denselayer{1 + layer % 40}"
        for place, (name, shape, kind) in enumerate((
            ("norm1.weight", (8,), np.float32), ("norm1.bias", (8,), np.float32),
            ("norm1.running_mean", (8,), np.float32), ("norm1.running_var", (8,), np.float32),
            ("norm1.num_batches_tracked", (), np.int64), ("conv1.weight", (8, 8, 1, 1), np.float32),
        )):  # fmt: skip
            model[f"{at}.{name}"] = filled(shape, layer + place / 8, kind)
    return dict(list(model.items())[:count])


ZOO = {"scalars": scalars, "batch-norm": batch_norm, "listed": listed, "tied": tied, "dense": dense}

_names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_./-]{0,15}\Z", fullmatch=True)


@st.composite
def models(draw: st.DrawFn, most: int = 12) -> Model:
    """Any model a permit may name, in any order."""
    model = {}
    for number, name in enumerate(draw(st.lists(_names, min_size=1, max_size=most, unique=True))):
        shape = tuple(draw(st.lists(st.integers(1, 3), max_size=3)))
        kind = draw(st.sampled_from([np.float32, np.float64, np.int32, np.int64]))
        model[name] = np.asarray(np.arange(np.prod(shape, dtype=int)).reshape(shape) + number, kind)
    return model


def same(one: Model, other: Model) -> bool:
    """Equal in names, order, shape, type and every bit."""
    return list(one) == list(other) and all(
        (one[name].shape, one[name].dtype, one[name].tobytes())
        == (other[name].shape, other[name].dtype, other[name].tobytes())
        for name in one
    )
