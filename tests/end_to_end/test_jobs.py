"""`cloister node job` on a whole house: a task followed, its output read by staff, another ended."""

from __future__ import annotations

import pytest

from tests.end_to_end.commands import attempt
from tests.end_to_end.house import House, Permit
from tests.end_to_end.machine import eventually

pytestmark = pytest.mark.engine


def test_staff_follow_a_task_read_what_it_printed_and_end_another(house: House, rogue: Permit) -> None:
    node = house.hospitals[0]
    before, run = node.last(), house.begin("followed", rogue, node, misbehave="slow")

    def training(of: str) -> str | None:
        running = [each for each in node.jobs(of) if each["kind"] == "train" and each["state"] == "running"]
        return running[0]["job"] if running else None

    job = eventually(lambda: training(run), within_s=60, what="the task in its container")
    assert node.run("job", "logs", job).code == 0
    node.recorded(before, about=f"log/{job}", action="access", verdict="allowed")
    followed = node.run("job", "show", job, "--follow")
    assert f"{job} running" in followed.err
    ended = node.json("job", "show", job)
    assert ended["state"] in ("released", "delivered") and ended["used_s"] > 4 and ended["wait"] == ""
    assert house.hub.ended(run)["state"] == "done"

    second = house.begin("ended-by-staff", rogue, node, misbehave="slow")
    job = eventually(lambda: training(second), within_s=60, what="the task in its container")
    node.run("job", "stop", job)
    stopped = eventually(
        lambda: found if (found := node.json("job", "show", job))["state"] == "stopped" else None, what="its end"
    )
    assert stopped["code"] == "stopped"
    node.recorded(before, about=job, action="job_stop", verdict="allowed")
    attempt("node", "job", "logs", job, "--config", node.config).fault(5, "the container is gone")
    attempt("node", "job", "stop", job, "--config", node.config).fault(2, "it has ended")
