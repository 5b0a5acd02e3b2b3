"""What a job is given and hands in, for every model a permit may name: whole, and in the permit's order."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from containers.job.contract import Task, Tasks
from containers.job.flower import serve
from mediator import tensors
from tests.sim.zoo import Model, batch_norm, listed, models, same, specs_of

METRICS = {"loss": 0.5, "num-examples": 8}


def given_task(folder: Path, model: Model, *, named: bool = True, kind: str = "train") -> Task:
    """A task as a node writes it; `named=False`: as one did before `task.json` named the tensors."""
    at = folder / "in" / "tasks" / "1"
    at.mkdir(parents=True)
    order: dict[str, Any] = {"contract": 1, "task": 1, "kind": kind, "round": 1, "config": {}}
    if named:
        order["tensors"] = list(model)
    (at / "task.json").write_text(json.dumps(order, sort_keys=True))
    (at / "model.safetensors").write_bytes(save(dict(model)))
    return next(iter(Tasks(folder / "in", folder / "out")))


def handed_in(folder: Path, model: Model) -> Mapping[str, np.ndarray]:
    """What gate 2 reads of the answer."""
    return tensors.parse((folder / "out" / "1" / "model.safetensors").read_bytes(), specs_of(model))


@settings(max_examples=60, deadline=None)
@given(models(), st.data())
def test_a_model_comes_whole_and_goes_whole(model: Model, data: st.DataObject) -> None:
    """Handed in as it came, in another order, strided, in columns or big-endian: what gate 2 reads is the same."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = given_task(folder, model)
        assert same(task.model(), model)
        ways = (
            lambda array: array,
            np.asfortranarray if data.draw(st.booleans()) else lambda array: array,
            lambda array: np.stack([array, array], axis=-1)[..., 0],
            lambda array: array.astype(array.dtype.newbyteorder(">")),
        )
        answer = {}
        for each in data.draw(st.permutations(list(model))):
            # numpy's own helpers make a vector of a scalar: the shape is the test's business, not theirs
            changed = data.draw(st.sampled_from(ways))(task.model()[each])
            answer[each] = changed.reshape(model[each].shape)
        task.finish(model=answer, metrics=METRICS)
        assert same(handed_in(folder, model), model)


def test_a_task_that_does_not_name_its_tensors_is_read_all_the_same(tmp_path: Path) -> None:
    task = given_task(tmp_path, batch_norm(), named=False)
    assert {name: array.shape for name, array in task.model().items()} == {
        name: array.shape for name, array in batch_norm().items()
    }


# --- Flower's two ways to hand a model back -------------------------------------------------------------------

by_list, by_name = ClientApp(), ClientApp()


@by_list.train()
def _listed(msg: Message, context: Context) -> Message:
    """`set_weights` and `get_weights` of Flower's tutorials: the arrays as a bare list."""
    arrays = msg.content["arrays"].to_numpy_ndarrays()
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord(dict(METRICS))})
    return Message(content=content, reply_to=msg)


@by_name.train()
def _named(msg: Message, context: Context) -> Message:
    content = RecordDict({"arrays": msg.content["arrays"], "metrics": MetricRecord(dict(METRICS))})
    return Message(content=content, reply_to=msg)


def served(folder: Path, app: ClientApp, model: Model, *, named: bool = True) -> Mapping[str, np.ndarray]:
    serve(app, tasks=[given_task(folder, model, named=named)])
    return handed_in(folder, model)


@settings(max_examples=40, deadline=None)
@given(models(), st.sampled_from([by_list, by_name]))
def test_an_app_that_changes_nothing_changes_nothing(model: Model, app: ClientApp) -> None:
    with tempfile.TemporaryDirectory() as name:
        assert same(served(Path(name), app, model), model)


@pytest.mark.parametrize("app", [by_list, by_name])
def test_layers_of_equal_shape_are_not_exchanged(tmp_path: Path, app: ClientApp) -> None:
    """Sorted as text, 10 and 11 stand before 2; nothing else would tell."""
    assert same(served(tmp_path, app, listed()), listed())


def test_a_list_of_another_length_is_not_guessed_at(tmp_path: Path) -> None:
    short = ClientApp()

    @short.train()
    def _shortened(msg: Message, context: Context) -> Message:
        arrays = msg.content["arrays"].to_numpy_ndarrays()[:-1]
        content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord(dict(METRICS))})
        return Message(content=content, reply_to=msg)

    with pytest.raises(Exception, match="tensor_missing"):
        served(tmp_path, short, batch_norm())


# --- metrics --------------------------------------------------------------------------------------------------


class TorchScalar:
    """What torch's 0-d tensor looks like from outside; torch itself is in a job's image only."""

    shape = ()

    def __init__(self, value: object) -> None:
        self._value = value

    def item(self) -> object:
        return self._value


NUMBERS = [
    (8, 8), (0.5, 0.5), (True, 1), (np.float32(0.5), 0.5), (np.float16(0.5), 0.5), (np.float64(0.5), 0.5),
    (np.longdouble(0.5), 0.5), (np.int64(8), 8), (np.uint8(8), 8), (np.bool_(True), 1), (np.array(0.5), 0.5),
    (np.array(8), 8), (np.array(False), 0), (TorchScalar(0.5), 0.5), (TorchScalar(8), 8), (TorchScalar(True), 1),
]  # fmt: skip


def finished(folder: Path, **metrics: Any) -> dict[str, object]:
    Task(1, "evaluate", 1, {}, folder, folder).finish(metrics=metrics)
    written: dict[str, object] = json.loads((folder / "metrics.json").read_text())
    return written


@pytest.mark.parametrize(("value", "plain"), NUMBERS)
def test_a_scalar_of_any_library_is_a_plain_number(tmp_path: Path, value: Any, plain: float) -> None:
    written = finished(tmp_path, loss=value)["loss"]
    assert written == plain and type(written) is type(plain)


@pytest.mark.parametrize(
    "value",
    [None, "0.5", [0.5], {"loss": 0.5}, object(), 1j, np.complex64(1), np.zeros(1), np.zeros((1, 1)), np.str_("x"),
     np.datetime64("2026-01-01"), TorchScalar("x")],
)  # fmt: skip
def test_what_is_no_number_is_named_before_anything_is_written(tmp_path: Path, value: Any) -> None:
    with pytest.raises(TypeError, match="metric 'loss' is not a number"):
        finished(tmp_path, loss=value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), np.float32("nan"), np.array(-np.inf), TorchScalar(np.nan)]
)
def test_what_is_not_finite_is_named_before_anything_is_written(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ValueError, match="metric 'loss' is not finite"):
        finished(tmp_path, loss=value)
    assert not list(tmp_path.iterdir())


def test_an_apps_metrics_are_plain_numbers_too(tmp_path: Path) -> None:
    app = ClientApp()

    @app.evaluate()
    def _evaluate(msg: Message, context: Context) -> Message:
        # all that Flower's own record takes beside Python's: a double of numpy
        metrics = MetricRecord({"loss": np.float64(0.25), "num-examples": 8})
        return Message(content=RecordDict({"metrics": metrics}), reply_to=msg)

    serve(app, tasks=[given_task(tmp_path, batch_norm(), kind="evaluate")])
    assert json.loads((tmp_path / "out" / "1" / "metrics.json").read_text()) == {"loss": 0.25, "num-examples": 8}
