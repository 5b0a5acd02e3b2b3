"""Run an unmodified Flower `ClientApp` inside the job contract, without a network and without Flower's own processes.

    from cloister_job.flower import serve
    from my_app import app                  # flwr.clientapp.ClientApp with @app.train() and @app.evaluate()

    serve(app)

Each task becomes the `Message` that the app would get from a SuperNode: an ArrayRecord, in the permit's order, and a
ConfigRecord, under the names that Flower's strategies use. Of the reply, one ArrayRecord becomes the model and the
scalars of every MetricRecord the metrics. The permit decides what of that may leave.

What an app asks its `Context` for is there, too: `run_config` holds the app's own defaults (`[tool.flwr.app.config]` of
a `pyproject.toml` beside the program) under the task's configuration, which the permit bounds; `node_config` says that
this site is partition 0 of 1, since all it has is all there is, unless the task's configuration has `partition-id` and
`num-partitions`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, Metadata, MetricRecord, RecordDict
from flwr.app.message import make_message
from flwr.clientapp import ClientApp

from .contract import Task, Tasks

# what Flower's strategies call their records unless told otherwise
ARRAYS, CONFIG = "arrays", "config"
# what Flower's simulation, and so every quickstart, calls a node's share of the data
PARTITION: Mapping[str, int] = {"partition-id": 0, "num-partitions": 1}
# in process there is one run and one node; the real ids stay outside
_RUN, _HUB, _NODE = 1, 1, 2
# the container's own wall time ends a task; Flower's clock must not
_TTL_S = 7 * 24 * 3600.0


Scalar = str | int | float | bool


class NoReply(Exception):
    """The app answered with an error or without the records that the contract asks for."""


def serve(
    app: ClientApp,
    *,
    tasks: Iterable[Task] | None = None,
    node_config: Mapping[str, Scalar] | None = None,
    run_config: Mapping[str, Scalar] | None = None,
    project: Path | None = None,
) -> None:
    """Answer every task with `app`, until the container is asked to stop.

    The app's `Context` lives as long as this loop: its state carries over from round to round, as under Flower. Its
    `run_config` is, the later over the earlier: the defaults in `project`/pyproject.toml (the running program's folder
    if not given), `run_config`, the task's configuration.
    """
    tasks = Tasks() if tasks is None else tasks  # first: from here on, an exception's class is told
    defaults = {**_app_config(project or Path(sys.argv[0]).resolve().parent), **(run_config or {})}
    context = Context(_RUN, _NODE, {}, RecordDict(), {})
    for task in tasks:
        share = {name: task.config.get(name, own) for name, own in PARTITION.items()}
        context.node_config = {**share, **(node_config or {})}
        context.run_config = {**defaults, **task.config}
        reply = app(_message(task), context)
        if reply.has_error():
            raise NoReply("the app answered with an error")
        model = _arrays(reply.content, task.tensors) if task.kind == "train" else None
        task.finish(model=model, metrics=_metrics(reply.content))


def _app_config(project: Path) -> dict[str, Scalar]:
    """The configuration that a Flower app declares in its own project file, nested keys joined by dots as in Flower."""
    try:
        text = (project / "pyproject.toml").read_text(encoding="utf-8")
    except OSError:
        return {}
    import tomllib  # Python 3.11; an app without a project file needs none

    app = tomllib.loads(text).get("tool", {}).get("flwr", {}).get("app", {})
    return _flat(app.get("config", {}), "")


def _flat(table: Mapping[str, Any], prefix: str) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, Scalar):
            found[f"{prefix}{name}"] = value
        else:
            raise ValueError(f"{prefix}{name} in pyproject.toml is no number, text or truth")
    return found


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


def _arrays(content: RecordDict, given: tuple[str, ...]) -> dict[str, npt.NDArray[Any]]:
    """The reply's arrays by name. A bare list (`ArrayRecord([…])`, which Flower names "0", "1", …) is the given model's
    arrays in the order in which they were given."""
    records = list(content.array_records.values())
    if len(records) != 1:
        raise NoReply("a training reply holds exactly one ArrayRecord")
    names = list(records[0])
    if names == [str(place) for place in range(len(given))]:
        names = list(given)
    return {name: np.asarray(array.numpy()) for name, array in zip(names, records[0].values(), strict=True)}


def _metrics(content: RecordDict) -> dict[str, float]:
    found: dict[str, float] = {}
    for record in content.metric_records.values():
        found.update(_scalars(record))
    return found


def _scalars(record: MetricRecord) -> dict[str, float]:
    return {name: value for name, value in record.items() if isinstance(value, int | float)}
