"""Run an unmodified Flower `ClientApp` inside the job contract, without a network and without Flower's own processes.

    from cloister_job.flower import serve
    from my_app import app                  # flwr.clientapp.ClientApp with @app.train() and @app.evaluate()

    serve(app)

Each task becomes the `Message` that the app would get from a SuperNode: an ArrayRecord and a ConfigRecord, under the
names that Flower's strategies use. Of the reply, one ArrayRecord becomes the model and the scalars of every
MetricRecord the metrics. The permit decides what of that may leave.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, Metadata, MetricRecord, RecordDict
from flwr.app.message import make_message
from flwr.clientapp import ClientApp

from .contract import Task, Tasks

# what Flower's strategies call their records unless told otherwise
ARRAYS, CONFIG = "arrays", "config"
# in process there is one run and one node; the real ids stay outside
_RUN, _HUB, _NODE = 1, 1, 2
# the container's own wall time ends a task; Flower's clock must not
_TTL_S = 7 * 24 * 3600.0


class NoReply(Exception):
    """The app answered with an error or without the records that the contract asks for."""


def serve(
    app: ClientApp,
    *,
    tasks: Tasks | None = None,
    node_config: Mapping[str, str | int | float | bool] | None = None,
    run_config: Mapping[str, str | int | float | bool] | None = None,
) -> None:
    """Answer every task with `app`, until the container is asked to stop.

    The app's `Context` lives as long as this loop: its state carries over from round to round, as under Flower.
    """
    context = Context(_RUN, _NODE, dict(node_config or {}), RecordDict(), dict(run_config or {}))
    for task in tasks if tasks is not None else Tasks():
        reply = app(_message(task), context)
        if reply.has_error():
            raise NoReply("the app answered with an error")
        model = _arrays(reply.content) if task.kind == "train" else None
        task.finish(model=model, metrics=_metrics(reply.content))


def _message(task: Task) -> Message:
    arrays = ArrayRecord({name: Array(array) for name, array in task.model().items()})
    config = ConfigRecord({"server-round": task.round, **task.config})
    content = RecordDict({ARRAYS: arrays, CONFIG: config})
    # `Message(…)` asks for the identity of a Flower task process, which this is not
    metadata = Metadata(
        run_id=_RUN,
        message_id=f"task-{task.number}",
        src_node_id=_HUB,
        dst_node_id=_NODE,
        reply_to_message_id="",
        group_id=str(task.round),
        created_at=time.time(),
        ttl=_TTL_S,
        message_type=task.kind,
    )
    return make_message(metadata=metadata, content=content)


def _arrays(content: RecordDict) -> dict[str, npt.NDArray[Any]]:
    records = list(content.array_records.values())
    if len(records) != 1:
        raise NoReply("a training reply holds exactly one ArrayRecord")
    return {name: np.asarray(array.numpy()) for name, array in records[0].items()}


def _metrics(content: RecordDict) -> dict[str, float]:
    found: dict[str, float] = {}
    for record in content.metric_records.values():
        found.update(_scalars(record))
    return found


def _scalars(record: MetricRecord) -> dict[str, float]:
    return {name: value for name, value in record.items() if isinstance(value, int | float)}
