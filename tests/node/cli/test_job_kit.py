"""The researcher's kit as a person uses it, on the real engine: the page's own commands, and jobs that fail."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from containers.kit_engine import KitEngine
from mediator.signatures import VerifyKey
from node.kit.synthetic import plain_shape, write_version
from tests.containers.bench import ENGINE_URL, forget_images
from tests.end_to_end.commands import CLOISTER, ENVIRONMENT, Done

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "deploy" / "docs" / "researcher.md"


BUILT = ("my-job", "my-app", "my-statistic", "cloister-test-np", "cloister-test-bad")


@pytest.fixture(scope="module", autouse=True)
def _no_image_stays() -> Iterator[None]:
    yield
    forget_images(*BUILT)


def run(folder: Path, *words: object, **environment: str) -> Done:
    texts = tuple(str(word) for word in words)
    ended = subprocess.run(
        [str(CLOISTER), *texts], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=folder, timeout=280,
        env={**ENVIRONMENT, "DOCKER_HOST": ENGINE_URL, **environment}, check=False,
    )  # fmt: skip
    return Done(texts, ended.returncode, ended.stdout, ended.stderr)


def commands_of_the_page() -> list[list[str]]:
    """What stands in blocks of no language."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return [shlex.split(line) for language, block in blocks if not language for line in block.splitlines()]


def test_what_prepares_the_machine_is_what_prepares_it_for_these_tests() -> None:
    """`deploy/test.sh` makes the same environment and images before any test; here only the others are run."""
    others = [words for words in commands_of_the_page() if words[0] != "cloister"]
    assert [words[0] for words in others] == ["export", "./deploy/lib/images.sh"]
    tests = (ROOT / "deploy" / "test.sh").read_text("utf-8")
    assert "./deploy/lib/environment.sh" in others[0][1] and "deploy/lib/environment.sh" in tests
    assert "deploy/lib/images.sh" in tests
    recipes = (ROOT / "deploy" / "lib" / "images.py").read_text("utf-8")
    assert all(f'Recipe("{name}"' in recipes for name in others[1][1:])


def fill_in(draft: Path, committee: Path) -> None:
    """Put into a draft what the page says is still missing."""
    issuer = VerifyKey.from_text(committee.read_text()).key_id
    text = draft.read_text().replace('"issuer": "' + "0" * 32, f'"issuer": "{issuer}').replace("0" * 64, "5" * 64)
    draft.write_text(text.replace("say here ", "for ").replace("your", "a"))


@pytest.mark.engine
def test_every_command_of_the_page_does_what_the_page_says(tmp_path: Path) -> None:
    write_version(tmp_path / "published", plain_shape(60, 30, {"lesion": "double"}), project="lesions")
    (tmp_path / "manifest.json").write_bytes((tmp_path / "published" / "manifest.json").read_bytes())
    done: dict[str, Done] = {}
    for words in commands_of_the_page():
        if words[0] == "cloister":
            if words[1:3] == ["permit", "sign"]:
                run(tmp_path, *words[1:]).fault(3, "issuer", "public_key of person 1", "image 1", "purpose")
                fill_in(tmp_path / words[3], tmp_path / "committee.key.pub")
            ended = run(tmp_path, *words[1:])
            assert ended.code == 0, ended
            done[" ".join(words[1:4])] = ended
    # torch: cold and warm, and it learns something
    torch = done["job test my-job"].err
    assert "isolation canary: the sandbox held" in torch and "every output would be released" in torch
    assert re.search(r"round 1 train: released after [\d.]+ s \(cold, [\d.]+ MB at most\)", torch)
    assert re.search(r"round 2 train: released after [\d.]+ s \(warm", torch) and "num-examples 40" in torch
    # the draft's tensors are the network's, as the project's own page has them printed
    printed = docker.from_env(environment={"DOCKER_HOST": ENGINE_URL}).containers.run(
        "my-job", ["--tensors"], network_mode="none", remove=True
    )
    assert json.loads(printed) == json.loads((tmp_path / "my-job" / "permit.json").read_text())["tensors"]
    # Flower: an app that knows nothing of us
    assert "eval_acc" in done["job test my-app"].err
    app = (tmp_path / "my-app" / "app.py").read_text() + (tmp_path / "my-app" / "task.py").read_text()
    assert "cloister_job.flower" not in app and "contract" not in app
    # any language, the shape of a published dataset, an answer for programs
    answer = done["job test my-statistic"].json()
    assert answer["verdict"] == "released" and answer["canary"] == {"passed": True, "failures": []}
    assert (answer["data"]["train"], answer["data"]["test"]) == (40, 20)
    assert [(task["round"], task["kind"], task["start"]) for task in answer["tasks"]] == [
        (0, "evaluate", "cold"), (1, "train", "cold"), (1, "evaluate", "warm")
    ]  # fmt: skip
    assert (tmp_path / "permit.jws").is_file()
    leftovers = [one for one in KitEngine(ENGINE_URL)._api.containers(all=True) if "trial-" in str(one.get("Labels"))]
    assert leftovers == []


@pytest.mark.engine
def test_a_client_app_with_numpy_runs_as_it_would_under_flower(tmp_path: Path) -> None:
    assert run(tmp_path, "job", "new", "np", "--template", "flower-numpy").code == 0
    assert run(tmp_path, "job", "build", "np", "--tag", "cloister-test-np").code == 0
    config = '{"steps": 300, "lr": 0.5}'
    ended = run(tmp_path, "job", "test", "cloister-test-np", "--permit", "np/permit.json", "--config", config, "--json")
    assert ended.code == 0, ended
    tasks = ended.json()["tasks"]
    assert [task["verdict"] for task in tasks] == ["released"] * 5
    losses = [task["metrics"]["loss"] for task in tasks if task["kind"] == "evaluate"]
    assert losses[-1] < losses[0], "it learns"


# One program, ended as its configuration asks; Python's own library only. `PATIENT` must be seen nowhere but at home.
PROGRAM = """
import json, os, sys, time
sys.excepthook = lambda kind, error, trace: (
    open('/out/1/failure.json', 'w').write(json.dumps({'exception': kind.__name__})), print(error, file=sys.stderr))
print('reading PATIENT 17', flush=True)
while not os.path.isdir('/in/tasks/1'):
    time.sleep(0.02)
task = json.load(open('/in/tasks/1/task.json'))
end = task['config']['end']
os.mkdir('/out/1')
if end == 'raise':
    raise LookupError('PATIENT 17') if task['round'] else KeyError('PATIENT 17')
if end == 'memory':
    hoard = [b'x' * (1 << 20) for _ in range(10_000)]
if end == 'time':
    time.sleep(600)
if end == 'vanish':
    os._exit(3)
open('/out/1/metrics.json', 'w').write('{"num-examples": 3, "PATIENT": 17}')
open('/out/1/DONE', 'w')
time.sleep(600)
"""
ENDS = {
    "raise": ("failed", "raised_key_error"),
    "memory": ("failed", "out_of_memory"),
    "time": ("failed", "time_limit"),
    "vanish": ("failed", "job_failed"),
    "names": ("refused", "metric_not_permitted"),
}


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose job fails as it is told, and a draft that lets it be told."""
    folder = tmp_path_factory.mktemp("failing")
    assert run(folder, "job", "new", "bad", "--template", "plain").code == 0
    (folder / "bad" / "bad.py").write_text(PROGRAM)
    (folder / "bad" / "Containerfile").write_text(
        'FROM cloister-base\nCOPY bad.py /bad.py\nUSER 65532:65532\nENTRYPOINT ["python3", "/bad.py"]\n'
    )
    draft: dict[str, Any] = json.loads((folder / "bad" / "permit.json").read_text())
    draft["kinds"] = ["evaluate"]
    draft["metrics"] = {"evaluate": [draft["metrics"]["evaluate"][1]]}
    draft["config"] = [{"name": "end", "type": "str", "minimum": None, "maximum": None, "choices": [*ENDS]}]
    draft["resources"] |= {"memory_bytes": 128 << 20, "wall_time_s": 3}
    (folder / "permit.json").write_text(json.dumps(draft))
    assert run(folder, "job", "build", "bad", "--tag", "cloister-test-bad").code == 0
    return folder


@pytest.mark.engine
@pytest.mark.parametrize("end", ENDS)
def test_each_end_has_its_word_and_what_to_do_about_it(failing: Path, end: str) -> None:
    config = json.dumps({"end": end})
    ended = run(failing, "job", "test", "cloister-test-bad", "--config", config, "--json")
    verdict, code = ENDS[end]
    assert ended.code == 3, ended
    answer = ended.json()
    assert answer["verdict"] == verdict
    reasons = answer["tasks"][0]["reasons"]
    assert code in [reason["code"] for reason in reasons] and all(reason["mend"] for reason in reasons)
    assert "PATIENT" not in ended.out, "what a program reads is nobody's who reads the answer"
    if verdict == "failed":
        assert "reading PATIENT 17" in ended.err, "at home its last words are shown"


@pytest.mark.engine
def test_what_is_not_there_is_said_in_a_line(tmp_path: Path) -> None:
    assert run(tmp_path, "job", "new", "p", "--template", "plain").code == 0
    run(tmp_path, "job", "build", "nothing").fault(2, "no Containerfile")
    run(tmp_path, "job", "test", "no-such-image", "--permit", "p/permit.json").fault(2, "no image no-such-image")
    (tmp_path / "p" / "Containerfile").write_text("FROM no-such-base\n")
    run(tmp_path, "job", "build", "p").fault(2, "the base image no-such-base is not on this machine")
    (tmp_path / "p" / "Containerfile").write_text("FROM cloister-base\nRUN false\n")
    run(tmp_path, "job", "build", "p", "--tag", "cloister-test-broken").fault(2, "could not be built")
    away = run(tmp_path, "job", "build", "p", "--engine", f"unix://{tmp_path}/no.sock")
    away.fault(5, "container engine")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("job", "test", "x", "--permit", "no.json"), "cannot read"),
        (("job", "test", "x", "--permit", "text.json"), "not JSON"),
        (("job", "test", "x", "--permit", "list.json"), ""),
        (("job", "new", "q", "--template", "no"), "no template"),
    ],
)
def test_a_wrong_argument_is_one_line(tmp_path: Path, words: tuple[str, ...], text: str) -> None:
    (tmp_path / "text.json").write_text("PATIENT 17")
    (tmp_path / "list.json").write_text('["PATIENT 17"]')
    assert "PATIENT" not in run(tmp_path, *words).fault(2, text)


def test_the_kit_needs_the_engines_client_alone() -> None:
    """The plain install and `docker`: nothing of the node's or the hub's is imported on a researcher's machine."""
    program = (
        "import sys, node.kit.trial, containers.kit_engine\n"
        "from node.cli.app import application\n"
        "application('job')\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    ended = subprocess.run([str(CLOISTER.with_name("python")), "-c", program], capture_output=True, text=True, cwd=ROOT)
    loaded = set(re.findall(r"'(\w+)'", ended.stdout))
    assert "docker" in loaded, ended.stderr
    assert not loaded & {"grpc", "sqlalchemy", "pydantic", "flwr", "aiohttp", "alembic", "dp_accounting", "federation"}


def test_without_the_engines_client_the_kit_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "docker.py").write_text("raise ModuleNotFoundError(name='docker')")
    assert run(tmp_path, "job", "new", "p", "--template", "plain").code == 0
    missing = run(tmp_path, "job", "build", "p", PYTHONPATH=str(tmp_path))
    missing.fault(2, "the container engine's client")
    assert "cloister[kit]" in missing.err
