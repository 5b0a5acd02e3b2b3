"""What was said of a runner on Docker, said again on Podman: the very same tests, collected here once more.

Left out is what the engine has no part in: refusals before it is asked, and the reading of documents.
"""

from __future__ import annotations

import pytest

from tests.attacks.test_output_folder import (  # noqa: F401
    test_a_full_folder_is_seen_and_stays_within_its_caps,
    test_what_changes_after_done_is_copied_once_or_refused_and_never_half,
)
from tests.attacks.test_resources import *  # noqa: F403
from tests.containers.bench import Bench
from tests.containers.test_broker import (  # noqa: F401
    test_a_container_that_somebody_else_labelled_is_not_run,
    test_a_folder_exchanged_for_a_link_before_the_start_is_refused,
    test_a_spec_signed_with_another_key_is_refused,
    test_an_image_that_declares_a_volume_is_refused,
    test_an_image_whose_program_is_missing_ends_with_a_clear_reason,
    test_an_unknown_image_is_refused,
    test_another_sites_containers_are_not_touched,
    test_what_has_no_label_survives_cleaning,
)
from tests.containers.test_canary import (  # noqa: F401
    test_a_weaker_sandbox_is_found_by_the_engines_own_account,
    test_a_weaker_sandbox_is_found_from_inside,
    test_the_canary_passes_and_its_fingerprint_is_the_jobs,
    test_the_probe_finds_nothing_where_nothing_is_weak,
)
from tests.containers.test_engine import (  # noqa: F401
    test_an_image_is_found_by_its_id_and_never_by_a_tag,
    test_the_facts_of_an_engine_hold_still,
    test_the_lines_of_a_container_end_when_it_is_removed,
)
from tests.containers.test_runner import (  # noqa: F401
    TestTheRealRunner,
    test_a_broker_that_died_while_a_job_was_frozen_lets_it_go_on,
    test_a_frozen_job_is_stopped_too,
    test_a_job_that_exits_is_reported_with_its_status,
    test_a_job_that_ignores_sigterm_is_gone_within_5_seconds,
    test_a_listener_hears_of_the_time_limit,
    test_a_restarted_broker_adopts_what_runs,
)

pytestmark = pytest.mark.engine


@pytest.fixture
def bench(podman_bench: Bench) -> Bench:
    return podman_bench
