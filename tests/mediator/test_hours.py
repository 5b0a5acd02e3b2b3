"""Gate 1 and the site's schedule: hours that are closed, GPUs that are not there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import pytest

from mediator.admission import Admitted, Redeliver, admit, container_spec
from mediator.capacity import Calendar, Capacity, Closed, Gpu, SiteSchedule
from mediator.errors import Code, Denied
from mediator.ledger import Ledger, PriorRelease
from tests.mediator.samples import NOW, POLICY, RESOURCES, request

UNTIL_TWO = SiteSchedule(calendar=Calendar((Closed(time(8), time(14)),), UTC))
GIB = 1 << 30
TWO = SiteSchedule(Capacity((Gpu("GPU-small", 16 * GIB), Gpu("GPU-large", 80 * GIB)), concurrent_jobs=2))
CEILING = replace(RESOURCES, memory_bytes=1 << 33, gpus=2, gpu_memory_bytes=80 * GIB)


def codes(expires: datetime, where: SiteSchedule = UNTIL_TWO) -> list[Code]:
    asked = request(instruct={"expires": expires}, policy=replace(POLICY, schedule=where))
    with pytest.raises(Denied) as denied:
        admit(asked)
    return [reason.code for reason in denied.value.reasons]


def test_a_task_outside_the_hours_is_admitted_where_it_can_wait_for_them() -> None:
    asked = request(instruct={"expires": NOW + timedelta(hours=3)}, policy=replace(POLICY, schedule=UNTIL_TWO))
    assert isinstance(admit(asked), Admitted)


@pytest.mark.parametrize("hours", [1, 2])
def test_a_task_that_expires_before_the_hours_begin_is_refused(hours: int) -> None:
    assert codes(NOW + timedelta(hours=hours)) == [Code.OUTSIDE_SCHEDULE]


def test_a_site_that_never_opens_refuses() -> None:
    never = SiteSchedule(calendar=Calendar((Closed(time(0), time(0)),), UTC))
    assert codes(NOW + timedelta(days=1), never) == [Code.OUTSIDE_SCHEDULE]


def test_an_expired_instruction_is_expired_and_nothing_else() -> None:
    asked = request(instruct={"expires": NOW})
    with pytest.raises(Denied) as denied:
        admit(asked)
    assert [reason.code for reason in denied.value.reasons] == [Code.INSTRUCTION_EXPIRED]


def test_what_was_released_is_delivered_again_at_any_hour() -> None:
    asked = request(instruct={"attempt": 2}, policy=replace(POLICY, schedule=UNTIL_TWO))
    release = PriorRelease("run-1/1/train/1", asked.instruction.document.model_sha256)
    assert isinstance(
        admit(replace(asked, ledger=Ledger(task_charged=True, last_attempt=1, release=release))), Redeliver
    )


@pytest.mark.parametrize(
    ("gpus", "memory", "where", "passes"),
    [
        (1, 0, TWO, True), (2, 16 * GIB, TWO, True), (1, 80 * GIB, TWO, True),
        (2, 17 * GIB, TWO, False), (1, 1, SiteSchedule(), False), (1, 0, SiteSchedule(), False),
        (0, 0, SiteSchedule(), True),
    ],
)  # fmt: skip
def test_a_grant_that_no_gpus_here_could_meet_is_refused(
    gpus: int, memory: int, where: SiteSchedule, passes: bool
) -> None:
    granted = replace(RESOURCES, gpus=gpus, gpu_memory_bytes=memory)
    asked = request(grant={"resources": granted}, policy=replace(POLICY, resources=CEILING, schedule=where))
    if passes:
        assert isinstance(admit(asked), Admitted)
        return
    with pytest.raises(Denied) as denied:
        admit(asked)
    assert [reason.code for reason in denied.value.reasons] == [Code.RESOURCES_EXCEEDED]


def test_the_spec_names_the_gpus_of_the_queue_and_as_many_as_were_granted() -> None:
    granted = replace(RESOURCES, gpus=1)
    verdict = admit(request(grant={"resources": granted}, policy=replace(POLICY, resources=CEILING, schedule=TWO)))
    assert isinstance(verdict, Admitted)
    assert container_spec(verdict, "job-1", "/d", "/i", NOW, ("GPU-large",)).gpu_devices == ("GPU-large",)
    for names in ((), ("GPU-large", "GPU-small")):
        with pytest.raises(ValueError, match="as many"):
            container_spec(verdict, "job-1", "/d", "/i", NOW, names)
