"""The isolation canary: a container of the very same making that tries to get out, and tells.

No job runs without a passed canary for its sandbox fingerprint, at most `VALID_FOR` old. The result is a value; who
stores it, audits it and stops jobs on failure is core.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from containers import gpu
from durable.files import replace_file
from mediator.errors import Code, Denied, Ended
from mediator.ports import Runner
from mediator.types import ContainerSpec, OutputFile

VALID_FOR = timedelta(hours=24)
# the slowest part is forking up to the limit on processes: 4,096 take some seconds
WALL_TIME_S = 120
TASK = 1
MAX_REPORT_BYTES = 16_384


@dataclass(frozen=True)
class CanaryResult:
    """What a canary found: its sandbox fingerprint, whether all held, and the names of what did not."""

    fingerprint: str
    passed: bool
    failures: tuple[str, ...]


def canary_spec(job: ContainerSpec, *, name: str, sentinel: str, probe_root: Path, now: datetime) -> ContainerSpec:
    """The spec of the canary for `job`'s sandbox: the same limits, the sentinel's image, the broker's own folders."""
    folder = probe_root / name
    return replace(
        job,
        job=name,
        purpose="canary",
        image=sentinel,
        data_dir=str(folder / "data"),
        in_dir=str(folder / "in"),
        issued=now,
        expires=now + timedelta(seconds=WALL_TIME_S),
    )


def lay_out(spec: ContainerSpec, signed_spec: str, probe_root: Path, *, gvisor: bool, namespace: bool) -> None:
    """Make the canary's `/data` and `/in` under the broker's own root; called by the broker, idempotent."""
    folder = probe_root / spec.job
    task = folder / "in" / "tasks" / str(TASK)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    task.mkdir(parents=True, exist_ok=True)
    replace_file(folder / "data" / "nonce", nonce(signed_spec).encode("ascii"), flush=False)
    # the probe tries to fork beyond `pids`, and finds out whether the others are so
    kernel = "gvisor" if gvisor else "machine"
    config = {"pids": spec.resources.pids, "kernel": kernel, "user_namespace": namespace}
    config["gpu_nodes"] = list(gpu.nodes(spec.gpu_devices))
    order = {"contract": 1, "task": TASK, "kind": "evaluate", "round": 0, "config": config}
    replace_file(task / "task.json", json.dumps(order).encode("ascii"), flush=False)
    for at in (folder, *folder.rglob("*")):
        at.chmod(0o755 if at.is_dir() else 0o644)


def remove(job: str, probe_root: Path) -> None:
    """Remove the folders of a canary that is gone."""
    shutil.rmtree(probe_root / job, ignore_errors=True)


def nonce(signed_spec: str) -> str:
    """What the probe must read in `/data` and bring back; new for every signed spec."""
    return hashlib.sha256(signed_spec.encode()).hexdigest()


def run_canary(runner: Runner, signed_spec: str, fingerprint: str) -> CanaryResult:
    """Run the canary of `signed_spec`; passed only if its sandbox is the one with `fingerprint` and nothing gave.

    Raises `EngineUnavailable` if the engine does not answer, and `Denied` (gpu_unavailable) if it cannot give the
    GPUs: neither proves anything of the sandbox.
    """
    try:
        prepared = runner.prepare(signed_spec)
    except Denied as denied:
        return _failed(fingerprint, denied)
    try:
        if prepared.fingerprint != fingerprint:
            return CanaryResult(fingerprint, False, ("fingerprint",))
        ended = next((event.kind for event in runner.execute(prepared.job) if event.kind in _ENDS), "exited")
        if ended != "done":
            return CanaryResult(fingerprint, False, (f"probe_{ended}",))
        failures = judge(runner.finalise(prepared.job, TASK), nonce(signed_spec))
        return CanaryResult(fingerprint, not failures, failures)
    except Denied as denied:
        return _failed(fingerprint, denied)
    except Ended as ended:
        return CanaryResult(fingerprint, False, (str(ended.reason.code),))
    finally:
        runner.terminate(prepared.job, 0)


_ENDS = frozenset({"done", "exited", "out_of_memory", "time_limit", "stopped", "out_full"})


def judge(files: Sequence[OutputFile], expected_nonce: str) -> tuple[str, ...]:
    """The failures a probe's report names; a report that is not whole is a failure of its own."""
    content = {file.name: file.content for file in files}.get("metrics.json", b"")
    try:
        report = json.loads(content if len(content) <= MAX_REPORT_BYTES else b"")
        failures, brought = report["failures"], report["nonce"]
    except Exception:  # noqa: BLE001 - a report that cannot be read is the failure it is told as
        return ("report",)
    if not isinstance(failures, list) or not all(isinstance(name, str) for name in failures):
        return ("report",)
    return tuple(failures) if brought == expected_nonce else (*failures, "nonce")


def is_valid(result_time: datetime, now: datetime) -> bool:
    """Whether a passed canary of `result_time` still counts at `now`."""
    return timedelta(0) <= now - result_time <= VALID_FOR


def _failed(fingerprint: str, denied: Denied) -> CanaryResult:
    if denied.reasons[0].code is Code.GPU_UNAVAILABLE:
        raise denied
    return CanaryResult(
        fingerprint,
        False,
        tuple(reason.detail if reason.code is Code.NOT_SEALED else str(reason.code) for reason in denied.reasons),
    )
