"""torch's data loaders in the sandbox: workers hand batches over in /dev/shm, which the engine would keep at 64 MB."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace

import docker
import pytest

from tests.containers.bench import LIMITS, Bench, by_name, image_id, until

pytestmark = pytest.mark.engine

# Four batches of 24 MiB on their way at once: more than 64 MB, less than a quarter of the job's memory.
PROGRAM = """
import json, pathlib, time, torch
class Slices(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, index):
        return torch.full((6, 1024, 1024), float(index))
while not pathlib.Path("/in/tasks/1").is_dir():
    time.sleep(0.05)
loader = torch.utils.data.DataLoader(Slices(), batch_size=1, num_workers=2, prefetch_factor=2)
total = 0.0
for batch in loader:
    time.sleep(0.1)
    total += float(batch.mean())
out = pathlib.Path("/out/1")
out.mkdir()
(out / "metrics.json").write_text(json.dumps({"total": total}))
(out / "DONE").touch()
time.sleep(60)
"""


@pytest.fixture
def loading(bench: Bench) -> Iterator[Bench]:
    api = docker.APIClient(bench.url)
    made = api.create_container(image_id("cloister-job-torch"))["Id"]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("load.py")
        entry.size = len(PROGRAM)
        tar.addfile(entry, io.BytesIO(PROGRAM.encode()))
    api.put_archive(made, "/opt/cloister", archive.getvalue())
    image = str(api.commit(made, changes=['ENTRYPOINT ["python3", "/opt/cloister/load.py"]'])["Id"])
    api.remove_container(made)
    yield replace(bench, image=image)
    bench.broker().clean([])
    api.remove_image(image)


def test_two_workers_hand_over_more_than_the_engines_own_shared_memory(loading: Bench) -> None:
    broker = loading.broker()
    limits = replace(LIMITS, memory_bytes=1 << 30, pids=128)
    broker.prepare(loading.sign(loading.spec(resources=limits)))
    loading.give("job", 1)
    assert until(broker.execute("job"), "done", "exited", "out_of_memory").kind == "done"
    assert json.loads(by_name(broker.finalise("job", 1))["metrics.json"]) == {"total": float(sum(range(8)))}
