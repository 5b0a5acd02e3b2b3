"""GPUs by CDI on Podman 5.4, with made-up cards: it shows a request nowhere, and the nodes once the container runs."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from containers import canary
from containers.engine import ContainerEngine
from mediator.errors import Code, Denied
from tests.containers.bench import ENGINE_URL, LIMITS, REPO, Bench, image_id, until
from tests.containers.test_canary import spec_of
from tests.containers.test_gpus import granted, granting, seen
from tests.sim import nvidia
from tests.sim.nvidia import CARDS

pytestmark = pytest.mark.engine

# Podman looks here and nowhere that a test could name (its `cdi_spec_dirs` is not read for containers)
SPECS = Path("/var/run/cdi")
READY_S = 30.0
# Podman 5 writes the machine's address into every container's /etc/hosts, and the canary finds the names; this is what
# sandbox.md has an administrator say
SETTINGS = '[containers]\nhost_containers_internal_ip = "none"\n'
IMAGES = ("cloister-sentinel:latest", "cloister-attacker:latest")

# Debian 13's Podman with Debian 13 as its root, in a mount namespace of its own; folders of the machine's that tests,
# broker and engine share are seen from both sides. A mere chroot would not do: runc needs a root that can be exchanged.
SERVE = """
set -e
tree=$1 folder=$2
mount --make-rprivate /
mount --bind "$tree" "$tree"
cd "$tree"
for shared in proc sys dev run tmp; do mount --rbind "/$shared" "$tree/$shared"; done
mkdir -p .machine
pivot_root . .machine
umount -l /.machine
export PATH=/usr/sbin:/usr/bin PODMAN_IGNORE_CGROUPSV1_WARNING=1 CONTAINERS_CONF="$folder/containers.conf"
exec podman --root="$folder/disk" --runroot="$folder/run" --cgroup-manager=cgroupfs --runtime=runc \\
  --events-backend=file system service --time=0 "unix://$folder/podman.sock"
"""


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Podman 5.4 with the two images, its folders in a memory file system."""
    script = [REPO / "deploy/lib/newer_engines.sh"]
    tree = subprocess.run(script, check=True, capture_output=True, text=True).stdout.strip()
    folder = tmp_path_factory.mktemp("podman")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=640m", "none", folder], check=True)
    (folder / "containers.conf").write_text(SETTINGS)
    url = f"unix://{folder}/podman.sock"
    command = ["unshare", "--mount", "bash", "-c", SERVE, "serve", tree, str(folder)]
    with open(folder / "log", "wb") as log:
        service = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + READY_S
        while not (folder / "podman.sock").exists():
            assert time.monotonic() < deadline and service.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        with subprocess.Popen(["docker", "-H", ENGINE_URL, "save", *IMAGES], stdout=subprocess.PIPE) as save:
            load = ["docker", "-H", url, "load", "--quiet"]
            subprocess.run(load, stdin=save.stdout, check=True, capture_output=True)
        yield url
    finally:
        service.terminate()
        service.wait(30)
        subprocess.run(["umount", "--lazy", "--recursive", folder], check=True)


@pytest.fixture
def bench(tmp_path: Path, podman: str) -> Iterator[Bench]:
    path = nvidia.write_spec(SPECS, nvidia.cdi_spec())
    made = granting(Bench.make(tmp_path, image_id("cloister-attacker", podman), url=podman))
    yield made
    made.broker().clean([])
    path.unlink()


def test_each_made_up_card_by_itself_and_none_where_none_is_granted(bench: Bench) -> None:
    assert ContainerEngine(bench.url).offer().gpus.version.startswith("5.4")
    assert seen(bench, "one", CARDS[2:]) == (set(), 0, 1)
    assert seen(bench, "two", CARDS[:2]) == (set(), 0, 2)
    assert seen(bench, "none", ()) == (set(), 0, 0)


def test_the_canary_passes_with_a_card(bench: Bench) -> None:
    broker = bench.broker()
    job = broker.prepare(bench.sign(granted(bench, CARDS[:1])))
    probe = replace(spec_of(bench), resources=replace(LIMITS, gpus=1, pids=256), gpu_devices=CARDS[1:2])
    assert canary.run_canary(broker, bench.sign(probe), job.fingerprint) == canary.CanaryResult(
        job.fingerprint, True, ()
    )


def test_a_container_that_runs_is_prepared_again(bench: Bench) -> None:
    """Its account has changed by then: nodes are listed, and the environment says `void` twice."""
    signed = bench.sign(granted(bench, CARDS[:1]))
    first = bench.broker().prepare(signed)
    bench.give("job", 1)
    assert until(bench.broker().execute("job"), "done", "exited").kind == "done"
    assert bench.broker().prepare(signed) == first


@pytest.mark.parametrize("more", ["/dev/nvidia1", "/dev/dri/renderD128", "/dev/infiniband/uverbs0"])
def test_a_spec_that_brings_in_more_than_was_granted_ends_the_container_at_its_start(bench: Bench, more: str) -> None:
    nvidia.write_spec(SPECS, nvidia.cdi_spec(more={CARDS[0]: [more]}))
    broker = bench.broker()
    broker.prepare(bench.sign(granted(bench, CARDS[:1])))
    with pytest.raises(Denied) as caught:
        until(broker.execute("job"), "done", "exited")
    assert [(reason.code, reason.detail) for reason in caught.value.reasons] == [(Code.NOT_SEALED, "gpus")]
    assert bench.containers() == [("job", "keeper")]


def test_a_card_that_is_not_there_at_the_start_is_told_by_name(bench: Bench) -> None:
    broker = bench.broker()
    broker.prepare(bench.sign(granted(bench, CARDS[2:])))
    nvidia.write_spec(SPECS, nvidia.cdi_spec(CARDS[:2]))
    with pytest.raises(Denied) as caught:
        until(broker.execute("job"), "done", "exited")
    assert [reason.code for reason in caught.value.reasons] == [Code.GPU_UNAVAILABLE]
    with pytest.raises(Denied, match="gpu_unavailable: no CDI spec of this engine names"):
        broker.prepare(bench.sign(granted(bench, CARDS[2:], "next")))
