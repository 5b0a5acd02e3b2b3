"""One task with one container: what is put in, what its end means, what is taken."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from containers.warm.container import Preempted, WarmContainer, WarmTask
from containers.warm.conversation import Conversation
from durable.reading_group import EVERYBODY, ReadingGroup
from mediator.errors import Code, Denied, Ended, EngineUnavailable, NotNow, Reason
from mediator.ports import JobEvent
from mediator.types import Kind
from tests.containers.warm.house import KEY, House
from tests.sim.runner import FakeRunner


@pytest.mark.parametrize(
    ("said", "end", "code"),
    [
        ([JobEvent("failed", 1, code=Code.RAISED_KEY_ERROR)], "exited", Code.RAISED_KEY_ERROR),
        # what was said of another task, or by a code that is no exception's, says nothing of this end
        ([JobEvent("failed", 2, code=Code.RAISED_KEY_ERROR)], "exited", Code.JOB_FAILED),
        ([JobEvent("failed", 1, code=Code.BAD_SIGNATURE)], "exited", Code.JOB_FAILED),
        ([JobEvent("failed", 1)], "exited", Code.JOB_FAILED),
        # what the engine saw is not overruled by what the job says
        ([JobEvent("failed", 1, code=Code.RAISED_KEY_ERROR)], "out_of_memory", Code.OUT_OF_MEMORY),
        ([JobEvent("failed", 1, code=Code.RAISED_KEY_ERROR)], "time_limit", Code.TIME_LIMIT),
        ([], "out_full", Code.CONTRACT_OUT_FULL),
    ],
)
def test_the_jobs_own_word_about_its_end_counts_only_where_it_may(
    tmp_path: Path, said: list[JobEvent], end: Any, code: Code
) -> None:
    class Talking(FakeRunner):
        def execute(self, job: str) -> Iterator[JobEvent]:
            return iter([JobEvent("started"), *said, JobEvent(end)])

    house = House(tmp_path / "work", Talking)
    with pytest.raises(Ended) as ended:
        house.serve()
    assert ended.value.reason.code is code


def test_a_job_that_never_ends_meets_the_time_limit(house: House) -> None:
    with pytest.raises(Ended) as ended:
        house.serve(hang=True, limit_s=0.3)
    assert ended.value.reason.code is Code.TIME_LIMIT
    assert house.runner.containers == {}


@pytest.mark.parametrize("code", [Code.GPU_UNAVAILABLE, Code.NOT_SEALED])
def test_a_start_that_its_image_had_no_part_in_does_not_blame_the_image(house: House, code: Code) -> None:
    house.runner.refusals["execute"] = Reason(code, "gpus")
    with pytest.raises(Denied) as caught:
        house.serve()
    assert caught.value.reasons == (Reason(code, "gpus"),)
    assert house.runner.containers == {}


def test_any_other_no_at_the_start_is_still_the_end_of_the_job(house: House) -> None:
    house.runner.refusals["execute"] = Reason(Code.JOB_UNKNOWN)
    with pytest.raises(Ended, match="job_failed"):
        house.serve()


def test_a_task_whose_engine_went_away_is_not_now_and_is_served_again(house: House) -> None:
    """What an engine's restart ended is not the job's failure: the container goes, the task is given again."""
    honest = house.runner.execute

    def lost(job: str) -> Iterator[JobEvent]:
        yield JobEvent("started")
        raise EngineUnavailable("gone")

    house.runner.execute = lost  # type: ignore[method-assign]
    with pytest.raises(NotNow, match="went away"):
        house.serve()
    assert house.boxes.running() == () and list(house.root.iterdir()) == []
    house.runner.execute = honest  # type: ignore[method-assign]
    assert house.serve()


def test_a_stop_is_an_end_and_no_refusal(house: House) -> None:
    """Whoever stops a task says why; that is no gate's no, and carries one reason."""
    caught: list[BaseException] = []

    def work() -> None:
        with pytest.raises(Ended) as ended:
            house.serve(hang=True)
        caught.append(ended.value)

    thread = threading.Thread(target=work)
    thread.start()
    while not house.runner.specs:
        time.sleep(0.01)
    house.boxes.stop(Code.PERMIT_REVOKED, lambda key: True)
    thread.join(5)
    assert not isinstance(caught[0], Denied) and str(caught[0]) == "permit_revoked"


@pytest.mark.parametrize(
    ("group", "file", "folder"),
    [
        (EVERYBODY, 0o444, 0o755),
        pytest.param(
            ReadingGroup(64999), 0o440, 0o750, marks=pytest.mark.skipif(os.geteuid() != 0, reason="not a member")
        ),
    ],
)
def test_a_task_appears_whole_and_readable_for_the_container_alone(
    house: House, group: ReadingGroup, file: int, folder: int
) -> None:
    """By rename, with the contract's names, whatever the umask; and goes when it is done."""
    before = os.umask(0o077)
    try:
        container, files = made(house, group), {}
        talk = Conversation(container, house.runner, threading.Event(), lambda *_: None)
        talk.put(WarmTask(Kind.TRAIN, 3, {"lr": 1}, b"model", b"left", ("w", "b")))
        for path in (container.tasks_dir / "1").iterdir():
            files[path.name] = path.stat().st_mode & 0o777
    finally:
        os.umask(before)
    assert files == {"task.json": file, "model.safetensors": file, "checkpoint": file}
    assert (container.tasks_dir / "1").stat().st_mode & 0o777 == folder
    given = {path.stat().st_gid for path in (container.tasks_dir, *container.tasks_dir.rglob("*"))}
    assert given == {os.getegid() if group.gid is None else group.gid}
    told = json.loads((container.tasks_dir / "1" / "task.json").read_bytes())
    assert told == {"contract": 1, "task": 1, "kind": "train", "round": 3, "config": {"lr": 1}, "tensors": ["w", "b"]}
    talk.clear()
    assert list(container.tasks_dir.iterdir()) == []


def made(house: House, group: ReadingGroup = EVERYBODY) -> WarmContainer:
    container = WarmContainer("train-1", KEY, house.root / "train-1", group=group)
    container.make_folders()
    return container


@pytest.mark.parametrize(
    ("settings", "event", "error"),
    [
        # what was said first counts: who stopped it, then whether it was asked to leave, then whose fault it was
        ({"stop_code": Code.HOSPITAL_PAUSED, "engine_lost": True, "leave_by_s": 1e18}, "exited", Ended),
        ({"leave_by_s": 1e18, "engine_lost": True}, "exited", Preempted),
        ({"leave_by_s": 1e18}, "out_of_memory", Ended),
        ({"engine_lost": True, "refused": Reason(Code.NOT_SEALED)}, "exited", NotNow),
        ({"refused": Reason(Code.NOT_SEALED)}, "exited", Denied),
        ({}, "stopped", Ended),
    ],
)
def test_what_an_end_means(house: House, settings: dict[str, Any], event: Any, error: type[Exception]) -> None:
    container = made(house)
    talk = Conversation(container, house.runner, threading.Event(), lambda *_: None)
    for name, value in settings.items():
        setattr(container, name, value)
    container.events.put(JobEvent(event, status=-1))
    with pytest.raises(error):
        talk.wait(5)


def test_a_node_that_shuts_down_gives_no_answer(house: House) -> None:
    container, closing = made(house), threading.Event()
    container.stop_code = Code.STOPPED
    closing.set()
    with pytest.raises(NotNow):
        Conversation(container, house.runner, closing, lambda *_: None).wait(5)
