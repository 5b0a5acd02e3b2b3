"""A small job of nobody's, from its spec to its output: whether this node can do a job's work now.

Everything is made up here: three studies and their table, a model, a task. Then it goes a job's way: a spec that core
signs, folders that the broker makes, the data shown by links, a canary that holds, a container that is looked at before
it starts, a task that appears by rename, an output that is taken frozen and read as strictly as gate 2 reads.

No gate is asked and none opened: nobody asked from outside, no permit is named, no patient's file is in reach (the
program is the broker's, the image the sentinel's), and the output is compared with what it must be and thrown away.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from containers.self_test_job import what_was_read
from containers.warm.container import SandboxKey, WarmContainer, WarmTask
from containers.warm.conversation import Conversation, listen
from mediator import tensors
from mediator.audit import Action, Verdict
from mediator.datasets import CLINICAL, version_id
from mediator.errors import CloisterError, Code, Denied, Ended, Reason
from mediator.ports import Runner
from mediator.types import DatasetFile, Dtype, Kind, Manifest, OutputFile, Study, TensorSpec
from node.core.context import Core, event
from node.core.tasks.trust_sandbox import SandboxTrust, spec_under
from node.host.versions import job_view, write_file

log = logging.getLogger(__name__)

# the task alone: a program that starts, reads four files and answers
LIMIT_S = 60.0
NAME = "self-test"
MODEL = (TensorSpec("weight", (2, 3), Dtype.F32), TensorSpec("bias", (2,), Dtype.F32))
_STUDIES = 3


@dataclass(frozen=True)
class SelfTestResult:
    """The sandbox it ran in (empty: none was made), how long it took, and why it did not end as it must."""

    fingerprint: str
    seconds: float
    reason: Reason | None


class SelfTest:
    """Runs such a job; one at a time, beside whatever else computes, and in a paused node too."""

    def __init__(self, core: Core, runner: Runner, trust: SandboxTrust, sentinel: str) -> None:
        self._core = core
        self._runner = runner
        self._trust = trust
        self._sentinel = sentinel
        self._one_at_a_time = threading.Lock()

    def run(self, actor: str) -> SelfTestResult:
        """Run one for `actor`. Raises `NotNow` where the engine does not answer; either way it is on record."""
        with self._one_at_a_time:
            began_s, attempt = time.monotonic(), _Attempt(self._core, self._runner, self._trust, self._sentinel)
            try:
                reason = attempt.outcome()
            except BaseException:
                self._record(attempt.fingerprint, Code.INTERNAL, actor)
                raise
            self._record(attempt.fingerprint, None if reason is None else reason.code, actor)
            return SelfTestResult(attempt.fingerprint, time.monotonic() - began_s, reason)

    def _record(self, fingerprint: str, code: Code | None, actor: str) -> None:
        verdict = Verdict.DONE if code is None else Verdict.FAILED
        found = event(Action.SELF_TEST, f"sandbox/{fingerprint or 'unknown'}", verdict, code=code, actor=actor)
        with self._core.store.transaction(self._core.clock()) as tx:
            tx.record(event=found)


class _Attempt:
    """One such job. Its container is a guest, as a canary's is: no run's, no turn of the queue's."""

    def __init__(self, core: Core, runner: Runner, trust: SandboxTrust, sentinel: str) -> None:
        self._core, self._runner, self._trust = core, runner, trust
        self.fingerprint = ""
        name, nobody = f"{NAME}-{secrets.token_hex(8)}", hashlib.sha256(NAME.encode()).hexdigest()
        key = SandboxKey(NAME, NAME, 1, f"sha256:{nobody}", Kind.TRAIN, sentinel, nobody)
        self._container = WarmContainer(name, key, core.folders.work / name, group=core.job_group)
        # beside what jobs leave, which is swept at a start; linked from there, as a study is from its own room
        self._made = core.folders.jobs / name

    def outcome(self) -> Reason | None:
        try:
            with self._trust.sandboxes.guest(self._container.name):
                try:
                    self._serve()
                finally:
                    self._clear()
        except Denied as denied:
            return denied.reasons[0]
        except Ended as ended:
            return ended.reason
        finally:
            self._trust.sandboxes.sweep_guests()
        return None

    def _serve(self) -> None:
        core, container = self._core, self._container
        spec = replace(
            spec_under(core.ceiling, core),
            job=container.name,
            purpose="self_test",
            image=container.key.image,
            data_dir=str(container.data_dir),
            in_dir=str(container.in_dir),
        )
        prepared = self._runner.prepare(core.keys.verdict.sign(spec))
        self.fingerprint = prepared.fingerprint
        container.make_folders()
        manifest = made_up(self._made, core)
        job_view(self._made, manifest, "train", ("lesion",), container.data_dir, core.job_group)
        self._trust.require(spec, prepared)
        threading.Thread(target=listen, args=(self._runner, container), name=container.name, daemon=True).start()
        talk = Conversation(container, self._runner, threading.Event(), lambda *_: None)
        given = model()
        talk.put(WarmTask(Kind.TRAIN, 1, {}, given, tensors=tuple(one.name for one in MODEL)))
        talk.wait(LIMIT_S)
        judge(talk.take(), given, what_was_read(str(container.data_dir)))

    def _clear(self) -> None:
        with suppress(CloisterError):  # the engine is away: what is left is swept when it answers
            self._runner.terminate(self._container.name, 0.0)
        for folder in (self._container.folder, self._made):
            shutil.rmtree(folder, ignore_errors=True)


def model() -> bytes:
    """A model that nobody trained: 0, 1, 2, …"""
    return tensors.encode({one.name: np.arange(np.prod(one.shape), dtype="<f4").reshape(one.shape) for one in MODEL})


def judge(files: Sequence[OutputFile], given: bytes, read: dict[str, int]) -> None:
    """Raises `Denied` unless these are that job's answers: each number one more, and every byte of its data read."""
    found = {file.name: file.content for file in files}
    if set(found) != {"model.safetensors", "metrics.json"}:
        raise Denied(Reason(Code.CONTRACT_VIOLATION, "not the two files that it writes"))
    before, after = tensors.parse(given, MODEL), tensors.parse(found["model.safetensors"], MODEL)
    if any(not np.array_equal(after[name], before[name] + 1) for name in before):
        raise Denied(Reason(Code.CONTRACT_VIOLATION, "its model is not what it computes"))
    try:
        said = json.loads(found["metrics.json"])
    except ValueError:
        said = None
    if said != read:
        raise Denied(Reason(Code.CONTRACT_VIOLATION, "it did not read the data that it was shown"))


def made_up(folder: Path, core: Core) -> Manifest:
    """A dataset version of three studies, laid out as a published one is; no bit of it is a patient's."""
    folder.mkdir(mode=0o700)
    studies = tuple(
        Study(f"study-{n}", f"patient-{n}", "train", f"studies/study-{n}", 1) for n in range(1, _STUDIES + 1)
    )
    sink = pa.BufferOutputStream()
    names = pa.array([study.study for study in studies], pa.string())
    pq.write_table(pa.table({"study": names, "lesion": pa.array(range(_STUDIES), pa.int64())}), sink)
    contents = {CLINICAL: sink.getvalue().to_pybytes()}
    for study in studies:
        (folder / study.folder).mkdir(parents=True)
        contents[f"{study.folder}/0001.dcm"] = core.random_bytes(4096)
    for path, content in contents.items():
        write_file(folder / path, content)
    files = tuple(DatasetFile(path, len(each), hashlib.sha256(each).hexdigest()) for path, each in contents.items())
    return Manifest(
        dataset=NAME,
        project=NAME,
        site=core.site,
        dataset_version=version_id(files),
        created=core.clock(),
        supersedes=None,
        profile=NAME,
        profile_fingerprint="0" * 64,
        engine_version=NAME,
        counts={},
        excluded={},
        columns={"lesion": "int64"},
        studies=studies,
        files=files,
    )
