"""A database of before epsilon was counted by dataset: what its runs released is charged, with the noise they had."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mediator.types import Kind, PrivacyBudget, SiteDatasets
from node.core.store.engine import make_engine
from node.core.store.migrate import MIGRATIONS, migrate
from node.core.store.store import open_store
from tests.mediator import samples
from tests.mediator.samples import NOW, OTHER_VERSION, SITE, VERSION

_TIME = "2026-11-22 12:00:00.000000"


def older(folder: Path) -> Path:
    """The migrations of the version before."""
    shutil.copytree(MIGRATIONS, folder / "migrations")
    for path in (folder / "migrations" / "versions").glob("m*.py"):
        if path.name[1:5] > "0006":
            path.unlink()
    return folder / "migrations"


def put(raw: sqlite3.Connection, table: str, **values: Any) -> None:
    marks = ", ".join("?" for _ in values)
    raw.execute(f'INSERT INTO "{table}" ({", ".join(values)}) VALUES ({marks})', list(values.values()))


def fill(raw: sqlite3.Connection) -> None:
    """Three runs: two under a permit with a budget, whose metrics left exact, and one under a permit without."""
    put(raw, "site", site=SITE, added=_TIME)
    put(raw, "project", project="lesions", added=_TIME)
    for dataset, version in (("images", VERSION), ("images", OTHER_VERSION)):
        raw.execute("INSERT OR IGNORE INTO dataset VALUES (?, 'lesions', ?)", (dataset, SITE))
        put(
            raw, "dataset_version", dataset_version=version, dataset=dataset, created=_TIME, folder="f",
            manifest_sha256="0", profile_fingerprint="0", engine_version="1", counts="{}", excluded="{}",
        )  # fmt: skip
    both = (SiteDatasets(SITE, (VERSION, OTHER_VERSION)),)
    privacy = PrivacyBudget(epsilon=2.0, delta=1e-5, noise_multiplier=8.0)
    for name, changes in (("private", {"privacy": privacy, "datasets": both}), ("plain", {})):
        signed = samples.signed_permit(samples.permit(permit=name, permit_version=1, supersedes=None, **changes))
        put(
            raw, "permit", permit=name, permit_version=1, project="lesions", not_before=_TIME, expires=_TIME,
            text=signed.text, sha256=signed.sha256, key_id=signed.key_id, received=_TIME,
        )  # fmt: skip
        yes = samples.acceptance(signed)
        put(
            raw, "acceptance", sha256=yes.sha256, permit=name, permit_version=1, expires=_TIME, text=yes.text,
            key_id=yes.key_id, received=_TIME,
        )  # fmt: skip
    for run, permit, version in (("a", "private", VERSION), ("b", "private", OTHER_VERSION), ("c", "plain", VERSION)):
        put(raw, "run", run=run, state="running", changed=_TIME)
        put(raw, "run_version", run=run, dataset_version=version)
        for task in ("train", "evaluate"):
            put(
                raw, "ledger_entry", permit=permit, run=run, round=1, task=task, permit_version=1, size_bytes=10,
                epsilon=1.0, time=_TIME,
            )  # fmt: skip
    instruct(raw, "a", 1, "delivered", "train-1", 0.0)
    instruct(raw, "a", 2, "failed", None, 3.5)
    instruct(raw, "a", 3, "refused", None, 0.0)


def instruct(raw: sqlite3.Connection, run: str, attempt: int, state: str, sandbox: str | None, used_s: float) -> None:
    what = {"run": run, "permit": "private", "permit_version": 1, "round": 1, "task": "train"}
    name = f"{run}/1/train/{attempt}"
    put(
        raw, "instruction", instruction=name, **what, attempt=attempt, model_sha256="0" * 64, text="t",
        reply_context=b"c", received=_TIME, expires=_TIME, state="refused", hub_code="job_failed",
    )  # fmt: skip
    put(
        raw, "job", job=f"job-{attempt}", instruction=name, **what, state=state, sandbox=sandbox, created=_TIME,
        updated=_TIME, used_s=used_s, preempted=0,
    )  # fmt: skip


@pytest.fixture
def old(url: str, tmp_path: Path) -> str:
    engine = make_engine(url)
    migrate(engine, url, NOW, older(tmp_path))
    engine.dispose()
    with closing(sqlite3.connect(tmp_path / "node.db")) as raw:
        fill(raw)
        raw.commit()
    return url


def test_what_was_charged_before_is_charged_to_its_dataset(old: str) -> None:
    store = open_store(old, NOW)
    with store.read() as snapshot:
        assert snapshot.noised("images") == {8.0: 2} == snapshot.noised("images", "private")
        assert snapshot.noised("images", "plain") == {} == snapshot.noised("another")
        assert snapshot.had_budget("images") and not snapshot.had_budget("another")
        assert [(each.permit, each.noised, each.without_noise) for each in snapshot.spenders()] == [
            ("plain", 0, 2), ("private", 2, 2)
        ]  # fmt: skip
        charged = snapshot.charged("private", "b", 1, Kind.TRAIN)
        assert charged is not None and (charged.dataset, charged.noise_multiplier) == ("images", 8.0)
    store.close()


def test_attempts_of_before_count_where_they_reached_a_container(old: str) -> None:
    store = open_store(old, NOW)
    asked = samples.instruction(run="a", permit="private", permit_version=1, attempt=4)
    with store.read() as snapshot:
        assert snapshot.attempts_started(asked) == 2 == snapshot.ends_told("a")
    store.close()


def test_an_entry_of_an_unknown_dataset_counts_for_every_one(old: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "node.db")) as raw:
        raw.execute("DELETE FROM run_version WHERE run = 'b'")
        raw.commit()
    store = open_store(old, NOW)
    with store.read() as snapshot:
        assert snapshot.noised("images") == {8.0: 2} and snapshot.noised("another") == {8.0: 1}
        assert snapshot.had_budget("another")
    store.close()
