"""`cloister job init-model` on the real engine: every template, and images that make none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from safetensors.numpy import load_file

from mediator import tensors
from mediator.types import Dtype, TensorSpec
from node.kit.project import TEMPLATES
from tests.containers.bench import ENGINE_URL, forget_images
from tests.node.cli.test_job_kit import run

pytestmark = pytest.mark.engine
TAG = "cloister-test-initial"


@pytest.fixture(autouse=True)
def _no_image_stays() -> Iterator[None]:
    before = {one["Id"] for one in docker.APIClient(ENGINE_URL).containers(all=True)}
    yield
    after = docker.APIClient(ENGINE_URL).containers(all=True)
    assert [one for one in after if one["Id"] not in before and TAG in one["Image"]] == [], "no container stays"
    forget_images(TAG)


def made(folder: Path, template: str) -> Path:
    assert run(folder, "job", "new", "p", "--template", template, "--name", "p").code == 0
    assert run(folder, "job", "build", "p", "--tag", TAG).code == 0
    return folder / "p"


def drafted(project: Path) -> list[TensorSpec]:
    listed = json.loads((project / "permit.json").read_text())["tensors"]
    return [TensorSpec(each["name"], tuple(each["shape"]), Dtype(each["dtype"])) for each in listed]


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_templates_image_makes_the_model_that_its_draft_names(tmp_path: Path, template: str) -> None:
    project = made(tmp_path, template)
    words = ("job", "init-model", TAG, "--permit", "p/permit.json")
    done = run(tmp_path, *words, "--out", "model.safetensors", "--json")
    assert done.code == 0, done
    content, answer = (tmp_path / "model.safetensors").read_bytes(), done.json()
    parsed = tensors.parse(content, drafted(project))
    assert tensors.encode(parsed) == content, "what the hub takes"
    assert (answer["sha256"], answer["size_bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
    assert [each["name"] for each in answer["tensors"]] == [spec.name for spec in drafted(project)]
    assert set(load_file(tmp_path / "model.safetensors")) == {spec.name for spec in drafted(project)}
    # equal every time, and the trial takes it
    assert run(tmp_path, *words, "--out", "again.safetensors").code == 0
    assert (tmp_path / "again.safetensors").read_bytes() == content
    # a draft without tensors is filled
    draft: dict[str, Any] = json.loads((project / "permit.json").read_text())
    (tmp_path / "empty.json").write_text(json.dumps(draft | {"tensors": []}))
    refused = run(tmp_path, "job", "init-model", TAG, "--permit", "empty.json", "--out", "no.safetensors")
    refused.fault(3, "tensor_not_permitted")
    assert "--fill" in refused.err and not (tmp_path / "no.safetensors").exists()
    filled = run(tmp_path, "job", "init-model", TAG, "--permit", "empty.json", "--out", "f.safetensors", "--fill")
    assert filled.code == 0, filled
    assert sorted(json.loads((tmp_path / "empty.json").read_text())["tensors"], key=str) == sorted(
        draft["tensors"], key=str
    )


def refused_by(line: str) -> str:
    """A program that ends with status 9 where the system refuses what it does."""
    return f"import sys\ntry:\n    {line}\nexcept OSError:\n    sys.exit(9)\n"


PROGRAMS = {
    "fails": ("import sys; print('PATIENT 17'); sys.exit(7)", 2, "status 7"),
    "ignores": ("pass", 2, "left no initial.safetensors"),
    "rubbish": ("import os, sys; os.mkdir(sys.argv[2]); open(sys.argv[2] + '/initial.safetensors', 'w').write('x')", 3,
                "header_malformed"),
    "a-folder": ("import os, sys; os.makedirs(sys.argv[2] + '/initial.safetensors')", 2, "left no initial.safetensors"),
    "a-link": ("import os, sys; os.mkdir(sys.argv[2]); os.symlink('/etc/passwd', sys.argv[2] + '/initial.safetensors')",
               2, "left no initial.safetensors"),
    # sealed: who asks for the network, or for rights, gets neither
    "network": (refused_by("import socket; socket.create_connection(('192.0.2.1', 53), 2)"), 2, "status 9"),
    "root": (refused_by("import os; os.setuid(0)"), 2, "status 9"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_image_that_makes_no_model_is_said_with_the_cure(tmp_path: Path, name: str) -> None:
    program, code, text = PROGRAMS[name]
    assert run(tmp_path, "job", "new", "p", "--template", "plain").code == 0
    (tmp_path / "p" / "bad.py").write_text(program)
    (tmp_path / "p" / "Containerfile").write_text(
        'FROM cloister-base\nCOPY bad.py /bad.py\nUSER 65532:65532\nENTRYPOINT ["python3", "/bad.py"]\n'
    )
    assert run(tmp_path, "job", "build", "p", "--tag", TAG).code == 0
    done = run(tmp_path, "job", "init-model", TAG, "--permit", "p/permit.json")
    done.fault(code, text)
    assert done.said("hint: ") and not (tmp_path / "model.safetensors").exists()
    if name == "fails":
        assert "PATIENT 17" in done.err, "at home its last words are shown"


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    assert run(tmp_path, "job", "new", "p", "--template", "plain").code == 0
    run(tmp_path, "job", "init-model", "no-such-image", "--permit", "p/permit.json").fault(2, "no image no-such-image")
    run(tmp_path, "job", "init-model", TAG, "--permit", "nowhere.json").fault(2, "cannot read")
