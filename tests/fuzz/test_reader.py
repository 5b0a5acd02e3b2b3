"""Coverage-guided fuzzing, bounded in time: what `run.sh` does for hours, for seconds on every run of the tests."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SECONDS = int(os.environ.get("CLOISTER_FUZZ_SECONDS", "20"))


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_no_damaged_file_crashes_hangs_or_leaves_half_a_file(tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    there = {**os.environ, "TMPDIR": str(tmp_path)}
    fuzzer = [sys.executable, "-P", str(HERE / "reader.py")]
    subprocess.run([*fuzzer, "--seed", corpus], cwd=tmp_path, env=there, check=True, timeout=120)
    seeds = len(list(corpus.iterdir()))
    limits = ["-timeout=20", "-rss_limit_mb=2048", "-max_len=65536", "-print_final_stats=1"]
    done = subprocess.run(
        [*fuzzer, f"-max_total_time={SECONDS}", *limits, f"-dict={HERE / 'dicom.dict'}", corpus],
        cwd=tmp_path,
        env=there,
        capture_output=True,
        text=True,
        timeout=SECONDS + 180,
        check=False,
    )
    broken = [path.name for path in tmp_path.iterdir() if path.name.startswith(("crash-", "timeout-", "oom-", "leak-"))]
    assert (done.returncode, broken) == (0, []), done.stderr[-4000:]
    # guided indeed: inputs that reached something new were kept
    assert len(list(corpus.iterdir())) > seeds
