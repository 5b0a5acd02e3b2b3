"""What was said of a runner on Docker, said again on Podman: the very same tests, collected here once more.

Left out is what the engine has no part in: refusals before it is asked, and the reading of documents.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from containers import podman, sandbox
from mediator.errors import Code, Denied
from tests.attacks.test_output_folder import (  # noqa: F401
    test_a_full_folder_is_seen_and_stays_within_its_caps,
)
from tests.attacks.test_resources import *  # noqa: F403
from tests.containers.bench import CEILING, LIMITS, Bench, until
from tests.containers.closed import a_job_reads_by_its_group_alone
from tests.containers.test_broker import (  # noqa: F401
    test_an_image_that_declares_a_volume_is_refused,
    test_an_image_whose_program_is_missing_ends_with_a_clear_reason,
    test_an_unknown_image_is_refused,
    test_another_sites_containers_are_not_touched,
)
from tests.containers.test_canary import (  # noqa: F401
    WEAKER,
    probe,
    test_a_weaker_sandbox_is_found_by_the_engines_own_account,
    test_the_canary_passes_and_its_fingerprint_is_the_jobs,
    test_the_probe_finds_nothing_where_nothing_is_weak,
)
from tests.containers.test_engine import (  # noqa: F401
    test_an_image_is_found_by_its_id_and_never_by_a_tag,
    test_the_facts_of_an_engine_hold_still,
)
from tests.containers.test_runner import (  # noqa: F401
    TestTheRealRunner,
    test_a_broker_that_died_while_a_job_was_frozen_lets_it_go_on,
    test_a_frozen_job_is_stopped_too,
    test_a_job_that_exits_is_reported_with_its_status,
    test_a_listener_hears_of_the_time_limit,
    test_a_restarted_broker_adopts_what_runs,
)

pytestmark = pytest.mark.engine


@pytest.fixture
def bench(podman_bench: Bench) -> Bench:
    return podman_bench


@pytest.mark.parametrize(
    ("name", "failure"),
    [("seccomp and no-new-privileges", "system_calls_are_filtered"), ("mounts", "mounts_are_read_only")],
)
def test_a_weaker_sandbox_is_found_from_inside_too(bench: Bench, name: str, failure: str) -> None:
    assert failure in probe(bench, WEAKER[name])


def test_the_filter_is_a_file_of_ours_and_another_one_is_put_right(bench: Bench) -> None:
    """Podman reads the profile from a file: one that was changed is written anew before the engine sees it."""
    path = podman.seccomp_file(bench.site.probe_root)
    path.chmod(0o644)
    path.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    events = bench.start(bench.broker())
    assert path.read_text() == sandbox.SECCOMP
    until(events, "done")
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert podman.seccomp_file(bench.site.probe_root).read_text() == sandbox.SECCOMP
    assert not path.is_symlink()


def test_what_podman_cannot_grant_is_refused_by_name(bench: Bench) -> None:
    """Podman 4 passes over a request for GPUs, and gVisor is proved on Docker: no job starts without either."""
    other = replace(bench, site=replace(bench.site, runtime="runsc"))
    gpu = replace(bench, site=replace(bench.site, ceiling=replace(CEILING, gpus=1)))
    wanted = gpu.spec(resources=replace(LIMITS, gpus=1), gpu_devices=("GPU-00000000-0000-0000-0000-000000000000",))
    with pytest.raises(Denied, match=r"gpu_unavailable: Podman 4\S+ passes over a request for GPUs"):
        gpu.broker().prepare(gpu.sign(wanted))
    assert gpu.containers() == []
    with pytest.raises(Denied) as caught:
        other.broker().prepare(other.sign(other.spec()))
    assert (Code.NOT_SEALED, "runtime") in [(reason.code, reason.detail) for reason in caught.value.reasons]
    assert [role for _, role in other.containers()] in ([], ["keeper"])
    other.broker().clean([])


def test_a_job_reads_by_its_group_on_podman_too(podman_bench: Bench) -> None:
    a_job_reads_by_its_group_alone(podman_bench)
