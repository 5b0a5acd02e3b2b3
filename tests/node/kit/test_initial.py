"""An image's untrained model against a draft permit: order, names, and a draft that stays as it was written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from containers.job.initial import offer_initial, write_initial
from mediator.errors import Code, Denied, UsageFault
from mediator.types import Dtype, TensorSpec
from node.kit.initial import MODEL, TENSORS, ordered, specs_of, with_tensors
from node.kit.project import TEMPLATES

NUMPY = {Dtype.F32: np.float32, Dtype.F64: np.float64, Dtype.I32: np.int32, Dtype.I64: np.int64}
NAMES = st.from_regex(r"[ab019_][ab019._-]{0,7}", fullmatch=True)
SPECS = st.lists(
    st.builds(TensorSpec, NAMES, st.lists(st.integers(1, 3), max_size=3).map(tuple), st.sampled_from(list(Dtype))),
    min_size=1, max_size=12, unique_by=lambda spec: spec.name,
)  # fmt: skip
DRAFTS = sorted((Path(__file__).parents[3] / "node" / "kit" / "templates").glob("*/permit.json"))


def arrays(specs: list[TensorSpec]) -> dict[str, Any]:
    return {spec.name: np.ones(spec.shape, NUMPY[spec.dtype]) for spec in specs}


@given(SPECS)
def test_a_models_tensors_are_named_in_the_order_its_program_gives(
    tmp_path_factory: pytest.TempPathFactory, specs: list[TensorSpec]
) -> None:
    """Whatever order the file's header has: safetensors' writers sort it."""
    folder = tmp_path_factory.mktemp("initial")
    write_initial(folder, arrays(specs))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert specs_of(files) == tuple(specs)
    assert set(load(ordered(files[MODEL], specs))) == {spec.name for spec in specs}


def test_a_list_of_arrays_is_named_and_ordered_by_number_as_flower_does() -> None:
    model = save({str(number): np.ones(number + 1, np.float32) for number in range(12)})
    assert [spec.name for spec in specs_of({MODEL: model})] == [str(number) for number in range(12)]


def test_a_list_is_written_as_one(tmp_path: Path) -> None:
    write_initial(tmp_path, [np.float32(2.0), np.zeros((2, 0 + 1), np.int64)])
    listed = json.loads((tmp_path / TENSORS).read_text())
    assert listed == [
        {"name": "0", "shape": [], "dtype": "F32"}, {"name": "1", "shape": [2, 1], "dtype": "I64"}
    ]  # fmt: skip
    assert load((tmp_path / MODEL).read_bytes())["0"].shape == ()


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({MODEL: b""}, "no safetensors file"),
        ({MODEL: b"\xff" * 8}, "no safetensors file"),
        ({MODEL: (2).to_bytes(8, "little") + b"[]"}, "no tensors"),
        ({MODEL: (2).to_bytes(8, "little") + b"{}"}, "no tensors"),
        ({MODEL: (3).to_bytes(8, "little") + b"{x}"}, "no safetensors file"),
        ({MODEL: save({"a": np.zeros(1, np.float16)})}, "no permit can name"),
        ({MODEL: save({"a": np.zeros(0, np.float32)})}, "no permit can name"),
        ({MODEL: save({"a": np.zeros(1, np.float32)}, {"format": "pt"})}, "no permit can name"),
        ({MODEL: save({"a": np.zeros(1, np.float32)}), TENSORS: b"{"}, "not a list of tensors"),
        ({MODEL: save({"a": np.zeros(1, np.float32)}), TENSORS: b"[1]"}, "not a list of tensors"),
        ({MODEL: save({"a": np.zeros(1, np.float32)}), TENSORS: b'[{"name": "b"}]'}, "other tensors"),
        ({MODEL: save({"a": np.zeros(1, np.float32)}), TENSORS: b'[{"name": "a"}, {"name": "a"}]'}, "other tensors"),
    ],
)
def test_what_is_no_model_is_said_in_a_line(files: dict[str, bytes], text: str) -> None:
    with pytest.raises(UsageFault, match=text):
        specs_of(files)


def test_a_model_of_other_tensors_than_the_drafts_is_refused_with_every_reason() -> None:
    model = save({"a": np.zeros(2, np.float32), "c": np.zeros(1, np.float32)})
    specs = [TensorSpec("a", (3,), Dtype.F32), TensorSpec("b", (1,), Dtype.F32)]
    with pytest.raises(Denied) as caught:
        ordered(model, specs)
    assert {reason.code for reason in caught.value.reasons} >= {Code.TENSOR_MISSING, Code.TENSOR_NOT_PERMITTED}


@pytest.mark.parametrize("draft", DRAFTS, ids=lambda path: path.parent.name)
def test_a_drafts_tensors_are_replaced_and_nothing_else_of_it_is_touched(draft: Path) -> None:
    assert len(DRAFTS) == len(TEMPLATES)
    text = draft.read_text()
    spec = TensorSpec("only", (2, 3), Dtype.F64)
    changed = with_tensors(text, [spec])
    assert json.loads(changed) == {
        **json.loads(text), "tensors": [{"name": "only", "shape": [2, 3], "dtype": "F64"}]
    }  # fmt: skip
    before, after = text.splitlines(), changed.splitlines()
    assert [line for line in after if line not in before] == ['  {"name": "only", "shape": [2, 3], "dtype": "F64"}']
    # and what is put in again is what was there
    again = [
        TensorSpec(each["name"], tuple(each["shape"]), Dtype(each["dtype"])) for each in json.loads(text)["tensors"]
    ]
    assert with_tensors(changed, again) == text


@given(
    st.recursive(
        st.none() | st.text(max_size=5),
        lambda inner: st.dictionaries(st.sampled_from(["tensors", "x"]), inner) | st.lists(inner, max_size=2),
        max_leaves=6,
    ),
    SPECS,
)
def test_a_key_called_tensors_somewhere_else_is_not_mistaken_for_the_drafts(
    other: Any, specs: list[TensorSpec]
) -> None:
    for held in ({"other": other, "tensors": [1]}, {"tensors": [1], "other": other}, {"other": other}):
        found = json.loads(with_tensors(json.dumps(held), specs))
        assert {**found, "tensors": 0} == {**held, "tensors": 0}
        assert [each["name"] for each in found["tensors"]] == [spec.name for spec in specs]


def test_a_program_that_is_started_for_its_tasks_makes_no_model(tmp_path: Path) -> None:
    def never() -> dict[str, Any]:
        raise AssertionError

    for arguments in ([], ["--initial"], ["--other", str(tmp_path)]):
        offer_initial(never, arguments)
    with pytest.raises(SystemExit) as ended:
        offer_initial(lambda: {"a": np.zeros(1, np.float32)}, ["--verbose", "--initial", str(tmp_path / "new")])
    assert ended.value.code == 0 and (tmp_path / "new" / MODEL).is_file()


def test_torch_tensors_are_taken_as_they_are(tmp_path: Path) -> None:
    """Two names of one tensor, a gradient, a 0-d buffer: a module's state as it comes. No torch is installed here."""
    program = """
import sys, numpy as np
class Tensor:
    def __init__(self, array): self.array = array
    def detach(self): return self
    def cpu(self): return self
    def numpy(self): return self.array
shared = Tensor(np.arange(6, dtype=np.float32).reshape(2, 3).T)
from containers.job.initial import write_initial
from pathlib import Path
write_initial(Path(sys.argv[1]), {"b": shared, "a": shared, "n": Tensor(np.array(0, np.int64))})
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, cwd=Path(__file__).parents[3])
    found = load((tmp_path / MODEL).read_bytes())
    assert found["a"].tolist() == [[0, 3], [1, 4], [2, 5]] == found["b"].tolist() and found["n"].shape == ()
    assert [each["name"] for each in json.loads((tmp_path / TENSORS).read_text())] == ["b", "a", "n"]
