"""A canary on one engine, with all the time it wants: `python -m tests.kinds.canary URL FOLDER`."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from containers import canary
from containers.engine import ContainerEngine
from tests.containers.bench import LIMITS, Bench, image_id, utc_now
from tests.containers.test_canary import spec_of

SLOW_S = 110


def main() -> int:
    url, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir()
    bench = Bench.make(folder, image_id("cloister-sentinel", url), url=url)
    broker = bench.broker(engine=ContainerEngine(url, timeout_s=600))
    limits = replace(LIMITS, wall_time_s=SLOW_S)
    spec = bench.spec(resources=limits, expires=utc_now() + timedelta(hours=2))
    job = broker.prepare(bench.sign(spec))
    result = canary.run_canary(broker, bench.sign(spec_of(bench, wall_time_s=SLOW_S)), job.fingerprint)
    broker.clean([])
    print("passed" if result.passed else f"gave way: {', '.join(result.failures)}")
    return 0 if result.passed else 1


if __name__ == "__main__":
    sys.exit(main())
