"""Dataset versions in a core with real sockets: mounted, withdrawn, swept at a start."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mediator import canonical
from mediator.audit import Action, Verdict
from mediator.errors import Code, Denied
from mediator.manifests import ManifestV2
from mediator.roles import Role
from node.core.context import event
from node.core.core import CoreProcess, now
from node.core.datasets.publish import folder_of
from node.host.config import NodeConfig
from node.host.keys import read_verify_key
from node.ipc import datasets as words
from node.ipc.messages import Empty
from tests.node.core.handover import PROJECT, publish, write_handover
from tests.node.core.process.test_process import Served
from tests.sim.runner import FakeRunner


def published(core: CoreProcess, handover: Path) -> ManifestV2:
    write_handover(handover, [1, 2], "order-1")
    manifest = publish(handover, core.core.folders.datasets, created=now())
    digest = hashlib.sha256(canonical.encode(manifest)).hexdigest()
    with core.core.store.transaction(now()) as tx:
        done = event(Action.DATASET_PUBLISH, manifest.dataset_version, Verdict.DONE)
        tx.add_dataset_version(manifest, digest, folder_of(manifest), event=done)
    return manifest


def test_a_withdrawn_version_goes_from_the_disk_and_is_mounted_no_more(served: Served, tmp_path: Path) -> None:
    manifest = published(served.core, tmp_path / "handover")
    served.core._make_view(manifest.dataset_version, "train", ("lesion",), tmp_path / "data")
    assert len(list((tmp_path / "data" / "studies").iterdir())) == 1
    with served.client(Role.DATA_STEWARD) as client:
        client.call(words.DATASET_WITHDRAW, words.DatasetVersionId(dataset_version=manifest.dataset_version))
        listed = client.call(words.DATASETS, Empty())
    assert [(item.dataset_version, item.withdrawn, item.counts["studies"]) for item in listed] == [
        (manifest.dataset_version, True, 2)
    ]
    assert not list((served.config.paths.datasets / PROJECT).rglob("*.dcm"))
    with pytest.raises(Denied) as caught:
        served.core._make_view(manifest.dataset_version, "train", ("lesion",), tmp_path / "again")
    assert caught.value.reasons[0].code is Code.DATASET_MISSING


def test_a_core_that_starts_removes_what_the_last_one_left_half_done(config: NodeConfig, tmp_path: Path) -> None:
    def start() -> CoreProcess:
        made = CoreProcess(config, FakeRunner(read_verify_key(config.paths.verdict_public_key), {}))
        made.start()
        return made

    core = start()
    manifest = published(core, tmp_path / "handover")
    core.stop()
    studies = config.paths.datasets / PROJECT / "studies"
    for name in (".x.partial", "0" * 64):
        (studies / name).mkdir()
        (studies / name / "0001.dcm").write_bytes(b"x")
    start().stop()
    assert {path.name for path in studies.iterdir()} == {entry.root for entry in manifest.studies}
