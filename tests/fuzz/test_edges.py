"""The edges fuzzed for seconds on every run of the tests, and what was ever found there as plain tests.

The whole of it takes under a minute; `CLOISTER_FUZZ_SECONDS` gives it longer. One edge alone, for hours:

    mkdir corpus; python -P tests/fuzz/fuzz_edges.py link_inbound -max_len=4096 corpus
"""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import Metadata as ProtoMetadata

from mediator.errors import Malformed
from node.ipc import intake as words
from node.ipc.caller import Caller
from tests.federation.pieces import array, message, record
from tests.fuzz import edges
from tests.fuzz.edges import TARGETS

HERE = Path(__file__).parent
SECONDS = int(os.environ.get("CLOISTER_FUZZ_SECONDS", "25"))
# a different way on every run; `CLOISTER_FUZZ_SEED` takes one again
SEED = int(os.environ.get("CLOISTER_FUZZ_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)

# What the fuzzer printed when it found something, as (target, input in hex): a line for each, for ever.
FOUND: tuple[tuple[str, str], ...] = (
    ("core_sockets", "6b5e248acec88aeb64f33bdcf8e85f8c"),
    ("link_inbound", "0aa41aa87db8dd45639ef0a52ab6"),
)


@pytest.mark.parametrize("target", TARGETS)
def test_bytes_of_every_length_meet_no_edge_that_is_not_total(target: str) -> None:
    """The same few on every run, without the fuzzer."""
    for number in range(60):
        TARGETS[target](random.Random(number).randbytes(number * 5))


@pytest.mark.parametrize(("target", "found"), FOUND)
def test_what_was_found_is_not_found_again(target: str, found: str) -> None:
    TARGETS[target](bytes.fromhex(found))


def test_a_message_of_a_type_that_flower_does_not_have_is_malformed() -> None:
    """Flower's own reader of metadata raised it as a ValueError, past every check of ours."""
    metadata = ProtoMetadata(run_id=3, src_node_id=1, dst_node_id=edges.NODE, ttl=60.0, message_type="\x00")
    asked = record("RecordDict", model=record("ArrayRecord", w=array()), cloister=record("ConfigRecord"))
    contents: dict[str, bytes] = {}
    body = ProtoMessage(metadata=metadata).SerializeToString()
    metadata.message_id = message(asked, body=body).put(contents)
    for kind in ("\x00", "train"):  # in the note, and in the message itself
        metadata.message_type = kind
        with pytest.raises(Malformed):
            edges._Offline(contents).fetch(ProtoMessage(metadata=metadata).SerializeToString())


def test_a_message_with_a_megabyte_of_metadata_is_malformed() -> None:
    """Core keeps metadata, and says them again with each answer: one such answer would have held up all the others."""
    metadata = ProtoMetadata(run_id=3, src_node_id=1, dst_node_id=edges.NODE, ttl=60.0, message_type="train")
    metadata.group_id = "x" * (1 << 20)
    asked = record(
        "RecordDict", model=record("ArrayRecord", w=array()), cloister=edges.signed_record("instruction", "a")
    )
    contents: dict[str, bytes] = {}
    metadata.message_id = message(asked, body=ProtoMessage(metadata=metadata).SerializeToString()).put(contents)
    with pytest.raises(Malformed, match="more metadata"):
        edges._Offline(contents).fetch(ProtoMessage(metadata=metadata).SerializeToString())


def test_an_import_swept_under_a_name_that_no_record_takes_is_malformed() -> None:
    swept = edges._handlers()[words.SWEPT]
    for name in ("", "../../etc", "2.25.1", "A. Patient"):
        with pytest.raises(Malformed):
            swept(Caller("intake", person=""), words.Swept(name, 1))


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_no_bytes_meet_an_edge_that_is_not_total(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number in range(120):
        (corpus / f"seed-{number:03d}").write_bytes(bytes([number]) + random.Random(number).randbytes(16 << number % 6))
    limits = [f"-seed={SEED}", f"-max_total_time={SECONDS}", "-timeout=20", "-rss_limit_mb=2048", "-max_len=4096"]
    done = subprocess.run(
        [sys.executable, "-P", str(HERE / "fuzz_edges.py"), "every_edge", *limits, corpus],
        cwd=tmp_path, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True,
        timeout=SECONDS + 300, check=False,
    )  # fmt: skip
    broken = [path for path in tmp_path.iterdir() if path.name.startswith(("crash-", "timeout-", "oom-", "leak-"))]
    kept = [f'    ("every_edge", "{path.read_bytes().hex()}"),' for path in broken]
    told = "\n".join([f"CLOISTER_FUZZ_SEED={SEED}", *kept, done.stderr[-3000:]])
    assert done.returncode == 0 and not broken, told
    # guided indeed: inputs that reached something new were kept
    assert len(list(corpus.iterdir())) > 120
