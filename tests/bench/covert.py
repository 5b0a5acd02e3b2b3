"""What a hostile job could still say, measured: in the weights it may change, and in the time it takes.

    .venv/bin/python -m tests.bench.covert          the weights alone need no engine; the time needs it and the images

Weights: random bits are written into an update as its author likes, gate 2 releases it, and the bits are read back from
what left. Time: the spread of an unchanging task's duration, which bounds how finely a chosen one can be told.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from mediator import tensors
from mediator.release.decide import ReleaseRequest, noise_bytes, release
from mediator.sizes import reserve_bytes
from mediator.types import Dtype, Kind, MetricSpec, OutputFile, PrivacyBudget, TensorSpec
from tests.containers.bench import Bench, image_id, until
from tests.mediator.samples import enforced

PARAMETERS = 50_000
SPECS = (TensorSpec("head.weight", (PARAMETERS,), Dtype.F32),)
METRICS = {"train": (MetricSpec("num-examples", "count", 40, 40, 0),)}
CLIP_NORM = 1.0


def entropy(error: float) -> float:
    """Bits lost to an error rate on a binary symmetric channel."""
    return 0.0 if error in (0.0, 1.0) else -(error * math.log2(error) + (1 - error) * math.log2(1 - error))


def released(update: np.ndarray, privacy: PrivacyBudget | None) -> np.ndarray:
    given = tensors.encode({"head.weight": np.zeros(PARAMETERS, "<f4")})
    permit = enforced(tensors=SPECS, metrics=METRICS, clip_norm=CLIP_NORM, privacy=privacy)
    answer = (
        OutputFile("model.safetensors", tensors.encode({"head.weight": update})),
        OutputFile("metrics.json", b'{"num-examples": 40}'),
    )
    noise = np.random.default_rng(3).bytes(noise_bytes(permit))
    limit = reserve_bytes(SPECS, Kind.TRAIN)
    digest = hashlib.sha256(given).hexdigest()
    return release(ReleaseRequest(permit, Kind.TRAIN, answer, given, digest, limit, noise)).tensors["head.weight"]


def mantissa_bits(privacy: PrivacyBudget | None) -> float:
    """Bits a parameter carries when all 23 bits of its mantissa are the message, its size well inside the norm."""
    random = np.random.default_rng(5)
    message = random.integers(0, 1 << 23, PARAMETERS, dtype=np.uint32)
    # 0.5 of the norm: exponents of one value, so that nothing is clipped
    exponent = np.float32(0.25 / math.sqrt(PARAMETERS)).view(np.uint32) & np.uint32(0x7F800000)
    left = released((message | exponent).view(np.float32), privacy).astype(np.float32).view(np.uint32) & 0x7FFFFF
    wrong = message ^ left
    return sum(1 - entropy(float(np.mean(wrong >> bit & 1))) for bit in range(23))


def sign_bits(privacy: PrivacyBudget | None) -> float:
    """Bits a parameter carries by its sign, each as large as the norm allows: what survives noise best."""
    signs = np.random.default_rng(7).integers(0, 2, PARAMETERS)
    update = np.where(signs == 1, 1.0, -1.0).astype(np.float32) * np.float32(0.999 * CLIP_NORM / math.sqrt(PARAMETERS))
    return 1 - entropy(float(np.mean((released(update, privacy) > 0) != (signs == 1))))


def spread_s(rounds: int) -> list[float]:
    """Seconds of one task that always does the same, from its arrival to its files in our hands."""
    root = Path(tempfile.mkdtemp(prefix="cloister-covert-"))
    try:
        bench = Bench.make(root, image_id("cloister-attacker"))
        broker, took = bench.broker(), []
        broker.prepare(bench.sign(bench.spec()))
        events = broker.execute("job")
        for task in range(1, rounds + 1):
            began = time.perf_counter()
            bench.give("job", task, misbehave="timed", value=50)
            until(events, "done")
            broker.finalise("job", task)
            took.append(time.perf_counter() - began)
        broker.clean([])
        return took
    finally:
        shutil.rmtree(root)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=20, help="tasks to time; 0 leaves the engine out")
    rounds = parser.parse_args().rounds
    print(f"{'bits a parameter and round':44}{'in the mantissa':>18}{'in the sign':>14}")
    budgets = {"no privacy budget": None, **{f"noise {z:g} x norm": PrivacyBudget(8.0, 1e-5, z) for z in (0.1, 1.0)}}
    for name, privacy in budgets.items():
        print(f"{name:44}{mantissa_bits(privacy):18.3f}{sign_bits(privacy):14.4f}")
    if rounds:
        took = spread_s(rounds)
        spread = statistics.stdev(took)
        print(f"a task of 0.5 s takes {statistics.median(took):.3f} s, spread {spread:.3f} s")
        # Shannon-Hartley would ask for the noise's shape; steps of four spreads are told apart by anybody
        print(f"steps of 4 spreads in an hour: {math.log2(3600 / (4 * spread)):.1f} bits a task")


if __name__ == "__main__":
    main()
