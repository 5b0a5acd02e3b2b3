"""The airlock over core's real sockets: which role may what, and what the configuration makes of it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from mediator.errors import Code, Denied, UsageFault
from mediator.roles import Role
from node.core.airlock.settings import settings
from node.host.config import load_config
from node.ipc import airlock
from node.ipc import node as words
from node.ipc.messages import Empty
from tests.mediator import samples
from tests.node.core.process.test_process import Served, config, served
from tests.node.host.test_config import MINIMAL, write

__all__ = ["config", "served"]

FILE = airlock.FileId(file="file-1")


def test_who_may_ask_is_answered_clearly(served: Served) -> None:
    with served.client(Role.DATA_STEWARD) as client:
        assert client.call(airlock.AIRLOCK_LIST, Empty()) == ()
        for verb in (airlock.AIRLOCK_SHOW, airlock.AIRLOCK_TAKE, airlock.AIRLOCK_TAKEN):
            with pytest.raises(UsageFault, match="no such file"):
                client.call(verb, FILE)
        with pytest.raises(Denied) as denied:
            client.call(airlock.ANALYSIS_START, airlock.RunId(run="run-1"))
        assert denied.value.reasons[0].code is Code.RUN_ORDER_MISSING
    with served.client(Role.AUDITOR) as client:
        status = client.call(words.STATUS, Empty())
        assert (status.airlock_waiting, status.airlock_overdue) == (0, 0)


def test_persons_and_floors_come_from_the_configuration(tmp_path: Path) -> None:
    anna, bert = samples.STEWARD.verify_key, samples.RESEARCHER.verify_key
    persons = f'{{ subject = "anna", public_key = "{anna.text}" }}, {{ subject = "bert", public_key = "{bert.text}" }}'
    text = (
        f"{MINIMAL}\n[airlock]\npersons = [{persons}]\nthreshold = 20\nreviewers = 2\nremind_s = 60\nexpire_s = 120\n"
    )
    found = settings(load_config(write(tmp_path, text)).airlock)
    assert dict(found.subjects) == {anna.key_id: "anna", bert.key_id: "bert"} and set(found.ring) == set(found.subjects)
    assert (found.threshold, found.reviewers) == (20, 2)
    assert (found.remind, found.expire) == (timedelta(minutes=1), timedelta(minutes=2))


def test_by_default_nobody_reviews_and_so_nothing_leaves(tmp_path: Path) -> None:
    found = settings(load_config(write(tmp_path, MINIMAL)).airlock)
    assert not found.ring and not found.subjects and (found.threshold, found.reviewers) == (10, 1)


@pytest.mark.parametrize(
    "line",
    ["threshold = 1", "reviewers = 3", "reviewers = 0", "expire_s = 0", "reviewer = 1",
     'persons = [{ subject = "Anna Silva", public_key = "' + "a" * 64 + '" }]',
     'persons = [{ subject = "anna", public_key = "x" }]'],
)  # fmt: skip
def test_a_configuration_that_opens_the_door_wider_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageFault, match="airlock"):
        load_config(write(tmp_path, f"{MINIMAL}\n[airlock]\n{line}\n"))


def test_two_names_for_one_key_are_refused(tmp_path: Path) -> None:
    key = samples.STEWARD.verify_key.text
    persons = ", ".join(f'{{ subject = "{name}", public_key = "{key}" }}' for name in ("anna", "bert"))
    with pytest.raises(UsageFault, match="same key"):
        load_config(write(tmp_path, f"{MINIMAL}\n[airlock]\npersons = [{persons}]\n"))
