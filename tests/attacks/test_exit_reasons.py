"""Attacks through a job's own word about its end, by a real container on the real engine: a name of the list comes out,
and nothing else, whatever stands in `failure.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from containers.kit_engine import KitEngine
from mediator.errors import Code
from mediator.ports import JobEvent
from tests.containers.bench import ENGINE_URL, LIMITS, Bench, forget_images, until

pytestmark = pytest.mark.engine

# One task after the other, each with another `failure.json`; none of them ends the container.
PROGRAM = """
import os, time
ATTACKS = {
    1: lambda at: write(at, b'{"exception": "ValueError"}'),
    2: lambda at: write(at, b'{"exception": "Mrs. Smith, born 4 July 1950"}'),
    3: lambda at: write(at, b'Mrs. Smith'),
    4: lambda at: write(at, b'{"exception": "' + b'P' * 1_000_000 + b'"}'),
    5: lambda at: write(at, b'[' * 1_000_000),
    6: lambda at: os.symlink('/data/study.txt', at),
    7: lambda at: os.mkfifo(at),
    8: lambda at: write(at, b'{"exception": "ValueError", "text": "Mrs. Smith"}'),
}
def write(at, content):
    with open(at, 'wb') as file:
        file.write(content)
for number in range(1, 9):
    while not os.path.isdir(f'/in/tasks/{number}'):
        time.sleep(0.02)
    os.mkdir(f'/out/{number}')
    ATTACKS[number](f'/out/{number}/failure.json')
    time.sleep(0.3)
    write(f'/out/{number}/DONE', b'')
write('/out/8/metrics.json', b'{}')
raise SystemExit('Mrs. Smith')
"""
HEARD = {1: Code.RAISED_VALUE_ERROR, 2: Code.RAISED_OTHER}


@pytest.fixture
def talker(bench: Bench, tmp_path: Path) -> Iterator[Bench]:
    project = tmp_path / "talker"
    project.mkdir()
    (project / "talk.py").write_text(PROGRAM)
    (project / "Containerfile").write_text(
        'FROM cloister-base\nCOPY talk.py /talk.py\nUSER 65532:65532\nENTRYPOINT ["python3", "/talk.py"]\n'
    )
    engine = KitEngine(ENGINE_URL)
    list(engine.build(project, "cloister-test-talker"))
    digest = engine.digest_of("cloister-test-talker")
    assert digest is not None
    bench.image = digest
    yield bench
    bench.broker().clean([])
    forget_images("cloister-test-talker", "cloister-test-breath")


def test_no_text_no_size_no_depth_and_no_link_comes_out_as_a_reason(talker: Bench) -> None:
    broker = talker.broker()
    # a folder and two files for each of eight tasks
    broker.prepare(talker.sign(talker.spec(resources=replace(LIMITS, out_files=40))))
    for number in range(1, 9):
        talker.give("job", number)
    events, seen = broker.execute("job"), []
    while not seen or seen[-1].kind not in ("exited", "stopped"):
        seen.append(next(events))
    failed = {event.task: event.code for event in seen if event.kind == "failed"}
    assert failed == HEARD
    assert len([event for event in seen if event.kind == "failed"]) == len(HEARD), (
        "a second word for a task is not heard"
    )
    assert {event.task for event in seen if event.kind == "done"} == set(range(1, 9))
    assert "Smith" not in json.dumps([vars(event) for event in seen], default=str)


def test_a_word_said_with_the_last_breath_is_heard(talker: Bench) -> None:
    """Written just before the end, between two looks of the keeper."""
    project = talker.root / "breath"
    project.mkdir()
    (project / "talk.py").write_text(
        "import os\nos.mkdir('/out/1')\n"
        "open('/out/1/failure.json', 'w').write('{\"exception\": \"KeyError\"}')\nos._exit(7)\n"
    )
    (project / "Containerfile").write_text((talker.root / "talker" / "Containerfile").read_text())
    engine = KitEngine(ENGINE_URL)
    list(engine.build(project, "cloister-test-breath"))
    talker.image = engine.digest_of("cloister-test-breath") or ""
    broker = talker.broker()
    events = talker.start(broker)
    assert until(events, "failed", "exited") == JobEvent("failed", task=1, code=Code.RAISED_KEY_ERROR)
    assert until(events, "exited").status == 7
