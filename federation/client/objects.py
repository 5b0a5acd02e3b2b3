"""Canonical Flower objects out of released values: what core signs object by object, and the link may push.

Runs in core's process, never in the link's: if the link hashed and then checked its own hashes, nothing would be
checked. Children stand before their parents, so that the order of the mapping is the order of pushing.
"""

from __future__ import annotations

from collections.abc import Mapping

from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from federation import arrays
from federation.arrays import Tensors, write_npy
from mediator.types import Kind, ReleasedObject

# The names of the records in every message, both ways.
MODEL_RECORD = "model"
METRICS_RECORD = "metrics"


class FlowerCodec:
    """`mediator.ports.UpdateCodec` with Flower's own object format (flwr 1.42)."""

    def encode(
        self, task: Kind, tensors: Tensors, metrics: Mapping[str, float | int]
    ) -> tuple[str, Mapping[str, bytes]]:
        """The RecordDict's object id and every object's bytes by id, children first.

        A training reply holds `model` and `metrics`, an evaluation reply `metrics` alone. Tensors stand in the order
        they come in, the permit's: Flower's strategies and apps read a model as a list, too. Metrics are read by name
        alone and sorted.
        """
        records = RecordDict()
        if task is Kind.TRAIN:
            records[MODEL_RECORD] = ArrayRecord({name: _array(tensor) for name, tensor in tensors.items()})
        records[METRICS_RECORD] = MetricRecord({name: metrics[name] for name in sorted(metrics)})
        objects = {key: nested.deflate() for key, nested in get_all_nested_objects(records).items()}
        return records.object_id, objects

    def listing(self, objects: Mapping[str, bytes]) -> tuple[ReleasedObject, ...]:
        """Ids and sizes in pushing order."""
        return tuple(ReleasedObject(key, len(content)) for key, content in objects.items())


def _array(array: arrays.Array) -> Array:
    return Array(dtype=array.dtype.name, shape=tuple(array.shape), stype="numpy.ndarray", data=write_npy(array))
