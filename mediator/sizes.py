"""How large what a permit grants becomes on its way, asked before it is signed and long before a round is charged.

A release is an envelope that names every Flower object by its id: two and more for each tensor. The envelope is a
signed document like any other, so a permit of more tensors than it has room for would train, be charged, and never
leave. So would one whose model has a longer header than gate 2 reads, is larger than a job may write or a link takes
in, or whose metrics fill more than a reply has room for. That ends at 5,514 tensors of one chunk each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from mediator import canonical, grammar
from mediator.errors import Code, Reason
from mediator.types import DataPermit, Kind, ReleasedObject, ReleaseEnvelope, TensorSpec

# The header of a safetensors file: 5,500 tensors of ordinary names; the library's own limit is 100 MB.
MAX_HEADER_BYTES = 1 << 20
# the largest model that a link takes in and a hub takes back, and the largest file of one that a command reads
MAX_MODEL_BYTES = 1 << 30
MAX_MODEL_FILE_BYTES = MAX_MODEL_BYTES + MAX_HEADER_BYTES + 8
# `metrics.json` as a container may write it
MAX_METRICS_BYTES = 8192
# a metric beside its name: quotes, colon, comma and spaces, and a number with all its digits; Flower's record has less
_METRIC_BYTES = 32
# Flower cuts an array's `.npy` bytes into chunks of 5 MiB, each an object (flwr 1.42).
CHUNK_BYTES = 5 << 20
# what an `.npy` file has before its data: numpy writes 128 bytes for up to eight dimensions
_NPY_HEADER_BYTES = 256
# RecordDict, ArrayRecord and MetricRecord, once in every release
_RECORDS = 3
# no object is larger than a chunk and its head, or than the record that names 5,500 arrays: seven digits
_LARGEST_OBJECT = 9_999_999
# What Flower's objects add to the numbers: measured 500 to 850 bytes a tensor, 100 for each 5 MiB chunk, under
# 1 KiB for records and 20 bytes beside its name for each metric (flwr 1.42). Room for two to four times that.
_OBJECT_BYTES = 8192
_RECORDS_BYTES = 1024
_TENSOR_BYTES = 2048
_CHUNK_BYTES = 512


def check_sizes(permit: DataPermit) -> list[Reason]:
    """Why no hospital could serve a permit's tasks, however they end; empty when one could.

    1. Its tensors: `check_tensors`.
    2. A task's output folder has room for the model.
    3. The metrics of each kind of task fit into `MAX_METRICS_BYTES`, and into what the ledger is charged for them.
    """
    reasons = check_tensors(permit.tensors)  # (1)
    size, limit = model_file_bytes(permit.tensors), permit.resources.out_bytes
    if Kind.TRAIN in permit.kinds and size > limit:  # (2)
        rule = f"a task writes a model of {size} bytes, over its out_bytes of {limit}"
        reasons.append(Reason(Code.PERMIT_TOO_LARGE, rule))
    for kind, specs in permit.metrics.items():  # (3)
        size, limit = sum(len(spec.name) + _METRIC_BYTES for spec in specs), _OBJECT_BYTES - _RECORDS_BYTES
        if size > limit:
            rule = f"{len(specs)} metrics of {kind} take up to {size} bytes, over the limit of {limit}"
            reasons.append(Reason(Code.PERMIT_TOO_LARGE, rule))
    return reasons


def check_tensors(tensors: Sequence[TensorSpec]) -> list[Reason]:
    """Why no hospital could serve a model of these tensors; empty when it could.

    1. Every release's envelope fits into a signed document.
    2. The model's header fits into what gate 2 reads, the model into what a link takes in.
    3. Tensors named 0, 1, 2, … stand in the order of their numbers. Flower names the arrays of a list like that, and
       to it the array at place 2 is the one named "2", wherever it stood in the permit.
    """
    reasons = []
    if (size := envelope_bytes(tensors)) > grammar.MAX_DOCUMENT_BYTES:  # (1)
        limit = grammar.MAX_DOCUMENT_BYTES
        rule = f"{len(tensors)} tensors make an envelope of {size} bytes, over the limit of {limit}"
        reasons.append(Reason(Code.PERMIT_TOO_LARGE, rule))
    if (size := header_bytes(tensors)) > MAX_HEADER_BYTES:  # (2)
        rule = f"{len(tensors)} tensors make a header of {size} bytes, over the limit of {MAX_HEADER_BYTES}"
        reasons.append(Reason(Code.PERMIT_TOO_LARGE, rule))
    if (size := sum(spec.size_bytes for spec in tensors)) > MAX_MODEL_BYTES:
        rule = f"the tensors have {size} bytes, over the limit of {MAX_MODEL_BYTES}"
        reasons.append(Reason(Code.PERMIT_TOO_LARGE, rule))
    names, places = [spec.name for spec in tensors], [str(place) for place in range(len(tensors))]
    if names != places and sorted(names) == sorted(places):  # (3)
        reasons.append(Reason(Code.TENSOR_ORDER, "tensors named by numbers stand in another order"))
    return reasons


def envelope_bytes(tensors: Sequence[TensorSpec]) -> int:
    """The most bytes of a release envelope for a model of these tensors, whatever site, run and round it is for."""
    objects = _RECORDS + sum(1 + -(-(spec.size_bytes + _NPY_HEADER_BYTES) // CHUNK_BYTES) for spec in tensors)
    each = ReleasedObject("0" * 64, _LARGEST_OBJECT)
    name, number = "x" * 64, grammar.MAX_INTEGER
    one = ReleaseEnvelope(
        site=name,
        instruction=f"{name}/{number}/{Kind.EVALUATE.value}/{number}",
        permit=name,
        permit_version=number,
        run=name,
        round=number,
        task=Kind.EVALUATE,
        root=each.id,
        objects=(each,),
        expires=datetime.max.replace(tzinfo=UTC),
    )
    return len(canonical.encode(one)) + (objects - 1) * (len(canonical.dumps(canonical.to_plain(each))) + 1)


def header_bytes(tensors: Sequence[TensorSpec]) -> int:
    """The bytes of a safetensors header for a model of these tensors, as ours and the library's writers print it."""
    total, offset = 2, 0
    for spec in tensors:
        end = offset + spec.size_bytes
        shape = ",".join(str(side) for side in spec.shape)
        entry = f'"{spec.name}":{{"data_offsets":[{offset},{end}],"dtype":"{spec.dtype.value}","shape":[{shape}]}}'
        total, offset = total + len(entry) + 1, end
    total -= bool(tensors)  # no comma behind the last
    return total + -total % 8


def model_file_bytes(tensors: Sequence[TensorSpec]) -> int:
    """The bytes of a safetensors file of a model of these tensors."""
    return 8 + header_bytes(tensors) + sum(spec.size_bytes for spec in tensors)


def reserve_bytes(specs: Iterable[TensorSpec], kind: Kind) -> int:
    """The most that one release of this kind can put on the wire: what the ledger is charged beforehand."""
    if kind is not Kind.TRAIN:
        return _OBJECT_BYTES
    return _OBJECT_BYTES + sum(
        spec.size_bytes + _TENSOR_BYTES + (spec.size_bytes // CHUNK_BYTES) * _CHUNK_BYTES for spec in specs
    )
