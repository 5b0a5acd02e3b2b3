"""The canary passes in the sandbox as built, and fails in any that is weaker in one thing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from containers import canary, podman, sandbox
from containers.engine import ContainerEngine
from containers.runner import Endings, RunningContainer
from mediator.types import ContainerSpec, OutputFile
from tests.containers.bench import ENGINE_URL, LIMITS, Bench, until, utc_now

pytestmark = pytest.mark.engine

Weaken = Callable[[dict[str, Any]], None]


def spec_of(bench: Bench, name: str = "canary", **limits: Any) -> ContainerSpec:
    job = bench.spec(resources=replace(LIMITS, **limits))
    return canary.canary_spec(
        job, name=name, sentinel=bench.site.sentinel, probe_root=bench.site.probe_root, now=utc_now()
    )


def test_the_canary_passes_and_its_fingerprint_is_the_jobs(bench: Bench) -> None:
    broker = bench.broker()
    job = broker.prepare(bench.sign(bench.spec()))
    result = canary.run_canary(broker, bench.sign(spec_of(bench)), job.fingerprint)
    assert result == canary.CanaryResult(job.fingerprint, True, ())


def test_a_canary_for_other_limits_says_nothing_about_this_sandbox(bench: Bench) -> None:
    broker = bench.broker()
    job = broker.prepare(bench.sign(bench.spec()))
    result = canary.run_canary(broker, bench.sign(spec_of(bench, pids=60)), job.fingerprint)
    assert (result.passed, result.failures) == (False, ("fingerprint",))


def test_the_fingerprint_changes_with_any_restriction_and_not_with_the_job(bench: Bench) -> None:
    facts = ContainerEngine(bench.url).facts("")
    image = bench.site.sentinel
    one = sandbox.create_arguments(bench.spec("one"), "job", bench.site, image)
    two = sandbox.create_arguments(bench.spec("two"), "job", bench.site, "sha256:" + "2" * 64)
    assert sandbox.fingerprint(one, facts) == sandbox.fingerprint(two, facts)
    for weaken in WEAKER.values():
        other = copy.deepcopy(two)
        weaken(other)
        assert sandbox.fingerprint(other, facts) != sandbox.fingerprint(two, facts)
    assert sandbox.fingerprint(two, {**facts, "start": "later"}) != sandbox.fingerprint(two, facts)


def host(**changes: Any) -> Weaken:
    return lambda arguments: arguments["HostConfig"].update(changes)


def writable_data(arguments: dict[str, Any]) -> None:
    for mount in arguments["HostConfig"]["Mounts"]:
        mount["ReadOnly"] = False


def with_network(arguments: dict[str, Any]) -> None:
    arguments["NetworkDisabled"] = False
    arguments["HostConfig"]["NetworkMode"] = "host"


def as_root(arguments: dict[str, Any]) -> None:
    arguments["User"] = "0:0"


WEAKER: dict[str, Weaken] = {
    "network": with_network,
    "root": host(ReadonlyRootfs=False),
    "capabilities": host(CapAdd=["NET_RAW", "CHOWN"]),
    "pids": host(PidsLimit=0),
    "seccomp and no-new-privileges": host(SecurityOpt=["no-new-privileges", "seccomp=unconfined"]),
    "mounts": writable_data,
    "user": as_root,
    "tmp": host(Tmpfs={"/tmp": "rw,exec"}),
}
# what the engine's own default filter would let through
DEFAULT_FILTER = host(SecurityOpt=["no-new-privileges"])
OLD_PRIVILEGES = host(SecurityOpt=["seccomp=unconfined"])


@pytest.mark.parametrize("name", [*WEAKER])
def test_a_weaker_sandbox_is_found_by_the_engines_own_account(bench: Bench, name: str) -> None:
    def build(*given: Any) -> dict[str, Any]:
        arguments = copy.deepcopy(sandbox.create_arguments(*given))
        if given[1] != "keeper":
            WEAKER[name](arguments)
        return arguments

    result = canary.run_canary(bench.broker(build), bench.sign(spec_of(bench)), "0" * 64)
    assert not result.passed
    assert name in result.failures
    assert [role for _, role in bench.containers()] == ["keeper"]


@pytest.mark.parametrize(
    ("weaken", "failure"),
    [
        (WEAKER["network"], "only_a_loopback"),
        (WEAKER["root"], "mounts_are_read_only"),
        (WEAKER["capabilities"], "no_capability"),
        (WEAKER["pids"], "forks_are_bounded"),
        (WEAKER["seccomp and no-new-privileges"], "system_calls_are_filtered"),
        (DEFAULT_FILTER, "dangerous_calls_are_refused"),
        (OLD_PRIVILEGES, "no_new_privileges"),
        (WEAKER["mounts"], "mounts_are_read_only"),
        (WEAKER["user"], "probe_exited"),  # root without capabilities may not write another user's /out
        (WEAKER["tmp"], "mounts_are_read_only"),
        (host(PidMode="host", Init=False), "own_processes_only"),
        (host(Ulimits=[{"Name": name, "Soft": 9999, "Hard": 9999} for name in ("nofile", "core")]),
         "open_files_are_bounded"),
        (host(Devices=[{"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/kmsg", "CgroupPermissions": "r"}]),
         "only_harmless_devices"),
        (host(Binds=[f"{ENGINE_URL.removeprefix('unix://')}:/run/docker.sock"]), "no_engine_socket"),
    ],
)  # fmt: skip
def test_a_weaker_sandbox_is_found_from_inside(bench: Bench, weaken: Weaken, failure: str) -> None:
    """The probe alone, past the engine's account: it must find the hole by trying."""
    report = probe(bench, weaken)
    assert failure in report


def test_the_probe_finds_nothing_where_nothing_is_weak(bench: Bench) -> None:
    assert probe(bench, lambda _: None) == ()


def probe(bench: Bench, weaken: Weaken) -> tuple[str, ...]:
    """What the probe reports out of a container weakened in one thing."""
    engine, spec = ContainerEngine(bench.url), spec_of(bench)
    signed = bench.sign(spec)
    users = engine.users()
    canary.lay_out(spec, signed, bench.site.probe_root, gvisor=bench.site.gvisor, namespace=users.namespace)
    engine.create_volume(sandbox.volume_arguments(spec, bench.site, users.first))
    made = {}
    for role in ("keeper", "canary"):
        arguments = copy.deepcopy(sandbox.create_arguments(spec, role, bench.site, bench.site.sentinel))
        if role == "canary":
            weaken(arguments)
        if engine.kind == "podman":
            arguments = podman.spoken(arguments, podman.seccomp_file(bench.site.probe_root))
        made[role] = engine.create(sandbox.container_name(spec.job, role, bench.site.site), arguments)
        engine.start(made[role])
    running = RunningContainer(engine, utc_now, Endings(), spec, made["keeper"], made["canary"])
    ended = until(running.events(), "done", "exited")
    if ended.kind != "done":
        return (f"probe_{ended.kind}",)
    return canary.judge(running.take(canary.TASK), canary.nonce(signed))


def test_a_report_that_is_not_whole_is_a_failure() -> None:
    whole = b'{"checks": 1, "failures": [], "nonce": "n"}'
    assert canary.judge([OutputFile("metrics.json", whole)], "n") == ()
    assert canary.judge([OutputFile("metrics.json", whole)], "another") == ("nonce",)
    for content in (b"", b"{}", b"[]", b'{"failures": "none", "nonce": "n"}', b" " * 20_000, b"[" * 9_000):
        assert canary.judge([OutputFile("metrics.json", content)], "n") == ("report",)
    assert canary.judge([], "n") == ("report",)


def test_a_canary_counts_for_24_hours() -> None:
    now = utc_now()
    assert canary.is_valid(now - timedelta(hours=24), now)
    assert not canary.is_valid(now - timedelta(hours=24, seconds=1), now)
    assert not canary.is_valid(now + timedelta(seconds=1), now)
