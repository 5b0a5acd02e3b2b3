"""`[schedule]` in a node's configuration."""

from __future__ import annotations

import os
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from mediator.capacity import Closed, Gpu
from mediator.errors import UsageFault
from node.host.config import NodeConfig, load_config
from tests.node.host.minimal import MINIMAL

GPUS = """
[[schedule.gpus]]
id = "GPU-a"
memory_bytes = 16
[[schedule.gpus]]
id = "MIG-b"
memory_bytes = 80
"""


def load(root: Path, extra: str = "") -> NodeConfig:
    path = root / "node.toml"
    path.write_text(MINIMAL + extra)
    return load_config(path)


def test_without_a_section_four_jobs_run_at_once_at_any_hour_on_no_gpu(tmp_path: Path) -> None:
    site = load(tmp_path).schedule.site
    assert site.capacity.concurrent_jobs == 4 and site.capacity.gpus == () and site.calendar.closed == ()
    assert (site.quantum, site.grace) == (timedelta(hours=1), timedelta(minutes=1))


def test_gpus_hours_and_the_ceiling_they_make(tmp_path: Path) -> None:
    hours = '[[schedule.closed]]\nstart = "08:00"\nend = "18:00"\ndays = ["mon", "fri"]\n'
    zone = '[schedule]\ntime_zone = "Europe/Amsterdam"\nslots_per_gpu = 2\n'
    config = load(tmp_path, f"[limits]\ngpus = 2\n{zone}{GPUS}{hours}")
    assert config.schedule.site.capacity.gpus == (Gpu("GPU-a", 16), Gpu("MIG-b", 80))
    assert config.schedule.site.calendar.closed == (Closed(time(8), time(18), frozenset({0, 4})),)
    assert not config.schedule.site.calendar.is_open(datetime(2026, 7, 6, 6, tzinfo=UTC)), "eight in summer"
    assert (config.ceiling.gpus, config.ceiling.gpu_memory_bytes) == (2, 40)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("[limits]\ngpus = 1\n", "limits.gpus is more than"),
        ('[schedule]\ntime_zone = "Mars/Olympus"\n', "not an IANA time zone"),
        ('[schedule]\ntime_zone = "../../etc/passwd"\n', "not an IANA time zone"),
        ('[[schedule.closed]]\nstart = "8:00"\nend = "18:00"\n', "schedule.closed.0.start: a time of day is HH:MM"),
        ('[[schedule.closed]]\nstart = "08:00"\nend = "24:00"\n', "a time of day is HH:MM"),
        ('[[schedule.closed]]\nstart = "00:00"\nend = "00:00"\n', "no hour of the week open"),
        ('[[schedule.closed]]\nstart = "08:00"\nend = "18:00"\ndays = ["monday"]\n', "schedule.closed.0.days.0"),
        ('[[schedule.gpus]]\nid = "all"\nmemory_bytes = 1\n', "schedule.gpus.0.id: a GPU is named by its UUID"),
        ('[[schedule.gpus]]\nid = "GPU-a"\nmemory_bytes = 0\n', "schedule.gpus.0.memory_bytes"),
        (GPUS + '[[schedule.gpus]]\nid = "GPU-a"\nmemory_bytes = 1\n', "a GPU is named twice"),
        ("[schedule]\nconcurrent_jobs = 0\n", "schedule.concurrent_jobs"),
        ("[schedule]\nslot_per_gpu = 1\n", "unknown key schedule.slot_per_gpu"),
    ],
)  # fmt: skip
def test_a_wrong_schedule_gets_one_clear_line(tmp_path: Path, extra: str, said: str) -> None:
    with pytest.raises(UsageFault) as caught:
        load(tmp_path, extra)
    assert said in caught.value.message and "\n" not in caught.value.message


def test_the_example_shows_every_key(tmp_path: Path) -> None:
    example = (Path(__file__).parents[3] / "deploy" / "node.example.toml").read_text()
    fields: dict[str, Any] = type(load(tmp_path).schedule).model_fields
    assert all(f"{name} = " in example or f"[[schedule.{name}]]" in example for name in fields)


def test_no_more_cpus_are_lent_than_there_are(tmp_path: Path) -> None:
    """So a permit that asks for more is refused at gate 1, and not by the engine in the middle of the night."""
    there = os.cpu_count() or 1
    assert load(tmp_path, "[limits]\ncpus = 4096\n").ceiling.cpus == there
    assert load(tmp_path, "[limits]\ncpus = 0.5\n").ceiling.cpus == 0.5
