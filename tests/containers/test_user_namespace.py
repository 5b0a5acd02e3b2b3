"""Engines that keep a container's users apart from the machine's: dockerd with `userns-remap`, and rootless Podman."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from containers import canary, sandbox
from containers.engine import ContainerEngine
from mediator.errors import Denied
from mediator.ports import Runner
from tests.containers.bench import MODEL, Bench, by_name, image_id, until
from tests.containers.closed import a_job_reads_by_its_group_alone
from tests.containers.contract import RunnerContract
from tests.containers.spare import Spare
from tests.containers.test_canary import host, probe, spec_of

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder that users other than root may pass through, as pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="cloister-test-", dir="/run"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def remapped(open_folder: Path) -> Iterator[Spare]:
    """A dockerd that gives its containers the users of `dockremap`, whom it makes itself."""
    folder = open_folder / "engine"
    folder.mkdir(mode=0o711)
    engine = Spare(folder, {"userns-remap": "default"})
    try:
        engine.start()
        engine.load()
        yield engine
    finally:
        engine.close()


@pytest.fixture
def bench(open_folder: Path, remapped: Spare) -> Iterator[Bench]:
    root = Path(tempfile.mkdtemp(dir=open_folder))
    made = Bench.make(root, image_id("cloister-attacker", remapped.url), url=remapped.url)
    yield made
    made.broker().clean([])


class TestRemapped(RunnerContract):
    @pytest.fixture
    def runner(self, bench: Bench) -> Runner:
        return bench.broker()

    def test_the_canary_passes_and_finds_itself_nobody_outside(self, bench: Bench) -> None:
        users = ContainerEngine(bench.url).users()
        assert users.namespace and users.limited and users.first[0] > 65_535
        assert "remapped" in ContainerEngine(bench.url).facts("")["users"]
        broker = bench.broker()
        job = broker.prepare(bench.sign(bench.spec()))
        result = canary.run_canary(broker, bench.sign(spec_of(bench)), job.fingerprint)
        assert result == canary.CanaryResult(job.fingerprint, True, ())

    def test_a_jobs_user_is_another_one_outside(self, bench: Bench) -> None:
        events = bench.start(bench.broker())
        until(events, "done")
        engine = ContainerEngine(bench.url)
        main = next(one.id for one in engine.containers(bench.site.site) if one.role == "job")
        pid = (engine.inspect(main) or {})["State"]["Pid"]
        assert os.stat(f"/proc/{pid}").st_uid == engine.users().first[0] + bench.site.uid
        assert by_name(bench.broker().finalise("job", 1))["model.safetensors"] == MODEL

    def test_a_job_reads_by_its_group_as_the_engine_counts_it(self, bench: Bench) -> None:
        a_job_reads_by_its_group_alone(bench)

    def test_a_container_outside_the_namespace_is_found_out(self, bench: Bench) -> None:
        """By the engine's own account; and from inside, where `/out` is then another user's."""

        def build(*given: Any) -> dict[str, Any]:
            arguments = copy.deepcopy(sandbox.create_arguments(*given))
            arguments["HostConfig"].update({} if given[1] == "keeper" else {"UsernsMode": "host"})
            return arguments

        result = canary.run_canary(bench.broker(build), bench.sign(spec_of(bench)), "0" * 64)
        assert (result.passed, result.failures) == (False, ("user namespace",))
        bench.broker().clean([])
        assert probe(bench, host(UsernsMode="host")) == ("probe_exited",)


@pytest.fixture(scope="module")
def rootless(open_folder: Path) -> Iterator[str]:
    """A Podman service of a plain user's, with an empty storage of its own."""
    user, place = "cloister-rootless", open_folder / "rootless"
    subprocess.run(["useradd", "--system", "--no-create-home", user], check=False, capture_output=True)
    place.mkdir()
    subprocess.run(["chown", user, place], check=True)
    socket = place / "podman.sock"
    command = [
        "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "env", "-i", "PATH=/usr/sbin:/usr/bin:/bin",
        f"HOME={place}", f"XDG_RUNTIME_DIR={place}", "podman", f"--root={place}/root", f"--runroot={place}/run",
        "--cgroup-manager=cgroupfs", "--events-backend=file", "--runtime=runc", "system", "service", "--time=0",
        f"unix://{socket}",
    ]  # fmt: skip
    service = subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not socket.exists():
            assert service.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        yield f"unix://{socket}"
    finally:
        service.terminate()
        service.wait(20)


def test_a_rootless_engine_is_asked_whether_it_can_bound_anything(rootless: str, tmp_path: Path) -> None:
    """On cgroup v1 it cannot, and says so nowhere that counts: refused by name. On v2 it is an engine like another."""
    users = ContainerEngine(rootless).users()
    assert users.rootless and users.namespace
    made = Bench.make(tmp_path, "sha256:" + "0" * 64, url=rootless, sentinel="sha256:" + "0" * 64)
    with pytest.raises(Denied) as caught:
        made.broker().prepare(made.sign(made.spec()))
    said = [str(reason) for reason in caught.value.reasons]
    assert "image_not_approved: the engine holds no image with this digest" in said
    assert ("not_sealed: a rootless engine bounds nothing on cgroup v1" in said) == (not users.limited)
    assert users.limited == Path("/sys/fs/cgroup/cgroup.controllers").exists()
