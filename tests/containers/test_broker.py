"""What the broker refuses, and that a refusal leaves nothing behind."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import tarfile
import uuid
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import docker
import pytest

from containers import sandbox
from containers.engine import ContainerEngine
from mediator import canonical
from mediator.errors import CloisterError, Code, Denied, Ended, EngineUnavailable, Malformed
from mediator.signatures import SigningKey
from node.ipc import broker as words
from node.ipc.verb import verbs_in
from tests.containers.bench import LIMITS, VERDICT_KEY, Bench, until, utc_now
from tests.containers.closed import a_job_reads_by_its_group_alone

pytestmark = pytest.mark.engine


def refuse(bench: Bench, signed: str, code: str) -> Denied:
    """Assert that `signed` is refused for `code`, on the record, and that nothing was made."""
    with pytest.raises(Denied) as caught:
        bench.broker().prepare(signed)
    assert code in [str(reason.code) for reason in caught.value.reasons]
    assert bench.records[-1][0] == "prepare"
    assert bench.records[-1][2] == str(caught.value.reasons[0].code)
    assert bench.containers() == []
    assert ContainerEngine(bench.url).volumes(bench.site.site) == {}
    return caught.value


def test_a_spec_signed_with_another_key_is_refused(bench: Bench) -> None:
    refuse(bench, SigningKey(b"x" * 32).sign(bench.spec()), "untrusted_key")


def test_a_spec_changed_after_signing_is_refused(bench: Bench) -> None:
    honest, greedy = bench.sign(bench.spec()), bench.sign(bench.spec(image=bench.site.sentinel))
    head, _, signature = honest.split(".")
    refuse(bench, ".".join((head, greedy.split(".")[1], signature)), "bad_signature")


def test_an_expired_spec_is_refused(bench: Bench) -> None:
    now = utc_now()
    refuse(
        bench,
        bench.sign(bench.spec(issued=now - timedelta(hours=2), expires=now - timedelta(seconds=1))),
        "spec_expired",
    )


def test_a_spec_from_the_future_is_refused(bench: Bench) -> None:
    now = utc_now()
    refuse(
        bench, bench.sign(bench.spec(issued=now + timedelta(hours=1), expires=now + timedelta(hours=2))), "spec_expired"
    )


@pytest.mark.parametrize("path", ["/", "/etc", "/root", "/run", "/proc", "/var/lib/docker"])
def test_a_host_mount_is_refused(bench: Bench, path: str) -> None:
    refuse(bench, bench.sign(bench.spec(data_dir=path)), "mount_not_permitted")
    refuse(bench, bench.sign(bench.spec(in_dir=path)), "mount_not_permitted")


def test_the_quarantine_is_no_mount(bench: Bench) -> None:
    """Identified data lies beside the broker's two roots: no spec of core's reaches it, by any spelling."""
    quarantine = bench.root / "quarantine"
    quarantine.mkdir()
    (quarantine / "study.enc").write_text("identified")
    work = bench.root / "work"
    (work / "job").mkdir()
    (work / "job" / "way").symlink_to(quarantine)
    for path in (quarantine, work / ".." / "quarantine", work / "job" / "way", f"{work}/job/../../quarantine"):
        refuse(bench, bench.sign(bench.spec(data_dir=str(path))), "mount_not_permitted")
        refuse(bench, bench.sign(bench.spec(in_dir=str(path))), "mount_not_permitted")
    assert (quarantine / "study.enc").read_text() == "identified"


def test_there_is_no_verb_to_run_a_program_in_a_job(bench: Bench) -> None:
    """Five verbs, each taking a job's name or a signed spec; none takes a program, and none reaches another's job."""
    served = {verb.name for verb in verbs_in(words)}
    assert served == {"prepare", "execute", "finalise", "terminate", "clean"}
    asked = {field.name for verb in verbs_in(words) for field in dataclasses.fields(verb.request)}
    assert asked == {"text", "job", "task", "grace_s", "jobs"}
    broker = bench.broker()
    until(bench.start(broker, job="victim"), "done")
    for name in ("victim;id", "../victim", "victim --privileged", "cloister-victim-job", "victim\n"):
        with pytest.raises(Denied, match="job_unknown"):
            broker.finalise(name, 1)
    assert broker.finalise("victim", 1)


def test_the_engine_socket_is_no_mount(bench: Bench) -> None:
    refuse(bench, bench.sign(bench.spec(in_dir=bench.url.removeprefix("unix://"))), "mount_not_permitted")


def test_the_root_itself_is_no_mount(bench: Bench) -> None:
    refuse(bench, bench.sign(bench.spec(data_dir=str(bench.site.work_root))), "mount_not_permitted")


def test_a_symbolic_link_in_a_mount_source_is_refused(bench: Bench) -> None:
    spec = bench.spec()
    work = bench.root / "work"
    (work / "link").symlink_to("/etc")
    (work / "inside").symlink_to(work / "job")
    for path in (work / "link", work / "inside" / "data", work / "link" / ".." / "etc", work / "job" / ".." / "job"):
        refuse(bench, bench.sign(replace(spec, data_dir=str(path))), "mount_not_permitted")


def test_a_folder_exchanged_for_a_link_before_the_start_is_refused(bench: Bench) -> None:
    broker = bench.broker()
    broker.prepare(bench.sign(bench.spec()))
    data = bench.root / "work" / "job" / "data"
    data.rename(data.with_name("moved"))
    data.symlink_to("/etc")
    with pytest.raises(Denied, match="mount_not_permitted"):
        broker.execute("job")


def test_a_missing_mount_source_or_a_file_is_refused(bench: Bench) -> None:
    spec = bench.spec()
    for path in ("nothing", "job/data/study.txt"):
        refuse(bench, bench.sign(replace(spec, data_dir=str(bench.root / "work" / path))), "mount_not_permitted")


def test_another_jobs_probe_folder_is_no_mount_for_a_job(bench: Bench) -> None:
    (bench.root / "probe" / "x").mkdir()
    refuse(bench, bench.sign(bench.spec(data_dir=str(bench.root / "probe" / "x"))), "mount_not_permitted")


def test_a_canary_mounts_nothing_but_its_own_folders(bench: Bench) -> None:
    refuse(bench, bench.sign(bench.spec(purpose="canary", image=bench.site.sentinel)), "mount_not_permitted")


def test_limits_above_the_ceiling_are_refused(bench: Bench) -> None:
    for name, value in (
        ("memory_bytes", 1 << 40),
        ("pids", 100_000),
        ("out_bytes", 1 << 40),
        ("cpus", 1000.0),
        ("gpu_memory_bytes", 1),
    ):
        refuse(bench, bench.sign(bench.spec(resources=replace(LIMITS, **{name: value}))), "resources_exceeded")
    gpu = bench.spec(resources=replace(LIMITS, gpus=1), gpu_devices=("GPU-0",))
    refuse(bench, bench.sign(gpu), "resources_exceeded")


def test_more_cpus_than_this_machine_has_are_refused_by_their_number(bench: Bench) -> None:
    """The engine would say no at the creation, in words that could be about any restriction."""
    there = ContainerEngine(bench.url).offer().cpus
    wide = replace(bench, site=replace(bench.site, ceiling=replace(bench.site.ceiling, cpus=1000.0)))
    with pytest.raises(Denied) as caught:
        wide.broker().prepare(wide.sign(wide.spec(resources=replace(LIMITS, cpus=there + 0.5))))
    assert [reason.code for reason in caught.value.reasons] == [Code.RESOURCES_EXCEEDED]
    assert f"{there + 0.5:g} CPUs are granted, and this machine has {there}" in str(caught.value)
    assert wide.containers() == []
    wide.broker().prepare(wide.sign(wide.spec(resources=replace(LIMITS, cpus=float(there)))))


def test_a_job_has_a_home_and_a_name_whatever_its_image_says(bench: Bench) -> None:
    """torch looks the user up on its way to a GPU; a number that stands in no list of users would end it."""
    image = committed(bench, changes=["ENV USER=root", "ENV HOME=/root", 'ENTRYPOINT ["sleep", "60"]'])
    broker, engine = bench.broker(), ContainerEngine(bench.url)
    try:
        broker.prepare(bench.sign(bench.spec(image=image)))
        next(broker.execute("job"))
        [job] = [one.id for one in engine.containers(bench.site.site, "job") if one.role == "job"]
        environment = (engine.inspect(job) or {})["Config"]["Env"]
        named = sorted(each for each in environment if each.startswith(("USER=", "HOME=")))
        assert named == ["HOME=/tmp", "USER=job"]
        ask = ["python3", "-c", "import getpass, os; print(getpass.getuser(), os.path.expanduser('~'))"]
        assert engine.run(job, ask, limit_bytes=100, timeout_s=20) == (0, b"job /tmp\n")
    finally:
        broker.clean([])
        docker.APIClient(bench.url).remove_image(image)


def test_an_image_by_tag_cannot_be_said(bench: Bench) -> None:
    """Neither by us nor by a core that signs what no `ContainerSpec` can hold."""
    with pytest.raises(ValueError, match="not a digest"):
        bench.spec(image="cloister-job-rogue:latest")
    plain = canonical.to_plain(bench.spec()) | {"image": "cloister-job-rogue:latest"}
    with pytest.raises(Malformed):
        bench.broker().prepare(sign_anything(plain))
    assert bench.containers() == []


@pytest.mark.parametrize(
    "extra", [{"privileged": True}, {"cap_add": ["SYS_ADMIN"]}, {"network": "host"}, {"binds": ["/:/host"]}]
)
def test_a_privilege_cannot_be_said(bench: Bench, extra: dict[str, object]) -> None:
    with pytest.raises(Malformed, match="unknown key"):
        bench.broker().prepare(sign_anything(canonical.to_plain(bench.spec()) | extra))
    assert bench.containers() == []


def test_an_unknown_image_is_refused(bench: Bench) -> None:
    refuse(bench, bench.sign(bench.spec(image="sha256:" + "1" * 64)), "image_not_approved")


def test_an_image_that_declares_a_volume_is_refused(bench: Bench) -> None:
    """The engine would give it a folder on the host's disk, writable and without a limit."""
    image = committed(bench, changes=["VOLUME /scratch"])
    try:
        assert "volume" in str(refuse(bench, bench.sign(bench.spec(image=image)), "image_not_approved"))
    finally:
        docker.APIClient(bench.url).remove_image(image)


def test_an_image_without_a_program_is_refused(bench: Bench) -> None:
    layer = io.BytesIO()
    tarfile.open(fileobj=layer, mode="w").close()
    name = f"empty-{uuid.uuid4().hex[:8]}"
    api = docker.APIClient(bench.url)
    api.import_image_from_data(layer.getvalue(), repository=name)
    image = str(api.inspect_image(name)["Id"])
    try:
        refuse(bench, bench.sign(bench.spec(image=image)), "image_not_approved")
    finally:
        docker.APIClient(bench.url).remove_image(image)


def test_an_image_for_another_processor_is_refused(bench: Bench) -> None:
    image = loaded(bench, architecture="s390x", config={"Entrypoint": ["/job"]})
    try:
        assert "processor" in str(refuse(bench, bench.sign(bench.spec(image=image)), "image_not_approved"))
    finally:
        docker.APIClient(bench.url).remove_image(image)


def loaded(bench: Bench, **members: object) -> str:
    """An image of one empty layer whose configuration says `members`; its id."""
    layer = io.BytesIO()
    tarfile.open(fileobj=layer, mode="w").close()
    layers = [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]
    config = json.dumps({"os": "linux", "rootfs": {"type": "layers", "diff_ids": layers}, **members}).encode()
    digest = hashlib.sha256(config).hexdigest()
    manifest = json.dumps([{"Config": f"{digest}.json", "Layers": ["layer.tar"], "RepoTags": None}]).encode()
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name, content in (("layer.tar", layer.getvalue()), (f"{digest}.json", config), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    list(docker.APIClient(bench.url).load_image(whole.getvalue()))
    return f"sha256:{digest}"


def test_an_image_whose_program_is_missing_ends_with_a_clear_reason(bench: Bench) -> None:
    image = committed(bench, changes=['ENTRYPOINT ["/no/such/program"]'])
    broker = bench.broker()
    try:
        broker.prepare(bench.sign(bench.spec(image=image)))
        try:
            # what the engine's init says when there is nothing to start: Docker's, Podman's
            assert until(broker.execute("job"), "exited").status in (127, 1)
        except Ended as ended:  # an engine without an init process of its own says so at once
            assert "job_failed" in str(ended)
    finally:
        broker.clean([])
        docker.APIClient(bench.url).remove_image(image)


def test_another_spec_for_the_same_job_is_refused(bench: Bench) -> None:
    broker = bench.broker()
    broker.prepare(bench.sign(bench.spec()))
    there = bench.containers()
    with pytest.raises(Denied, match="made for another spec"):
        broker.prepare(bench.sign(bench.spec(resources=replace(LIMITS, pids=60))))
    assert bench.containers() == there


def test_the_same_spec_signed_again_later_is_the_same_job(bench: Bench) -> None:
    broker = bench.broker()
    spec = bench.spec()
    first = broker.prepare(bench.sign(spec))
    assert broker.prepare(bench.sign(replace(spec, expires=spec.expires + timedelta(seconds=9)))) == first


def test_another_sites_containers_are_not_touched(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Bench.make(tmp_path / "other", bench.image)
    try:
        theirs = other.broker()
        events = other.start(theirs)
        until(events, "done")
        mine = bench.broker()
        for ask in (lambda: mine.execute("job"), lambda: mine.finalise("job", 1)):
            with pytest.raises(Denied, match="job_unknown"):
                ask()
        mine.terminate("job", 0)
        assert list(mine.clean([])) == []
        mine.prepare(bench.sign(bench.spec()))
        assert list(mine.clean([])) == ["job"]
        assert theirs.finalise("job", 1)
    finally:
        other.broker().clean([])


def test_a_container_that_somebody_else_labelled_is_not_run(bench: Bench) -> None:
    """The label alone is no right: it takes a spec that core signed."""
    api = docker.APIClient(bench.url)
    label = sandbox.labels("job", "job", bench.site.site) | {sandbox.SPEC_LABEL: "made up"}
    forged = api.create_container(bench.site.sentinel, labels=label, name=f"forged-{uuid.uuid4().hex[:8]}")["Id"]
    broker = bench.broker()
    for ask in (
        lambda: broker.execute("job"),
        lambda: broker.finalise("job", 1),
        lambda: broker.prepare(bench.sign(bench.spec())),
    ):
        with pytest.raises(Denied, match="job_unknown"):
            ask()
    assert api.inspect_container(forged)["State"]["Status"] == "created"


def test_what_has_no_label_survives_cleaning(bench: Bench) -> None:
    api = docker.APIClient(bench.url)
    bystander = api.create_container(bench.site.sentinel, name=f"bystander-{uuid.uuid4().hex[:8]}")["Id"]
    try:
        bench.broker().clean([])
        assert api.inspect_container(bystander)["State"]["Status"] == "created"
    finally:
        api.remove_container(bystander)


def test_an_engine_that_is_not_there_is_a_named_state(bench: Bench) -> None:
    with pytest.raises(EngineUnavailable):
        bench.broker(engine=ContainerEngine("unix:///nonexistent.sock")).prepare(bench.sign(bench.spec()))
    assert bench.records[-1] == ("prepare", "job", "engine_unavailable")


def test_no_error_of_the_engine_reaches_the_caller(bench: Bench) -> None:
    secret = f"/{bench.root.name}"
    try:
        bench.broker(engine=ContainerEngine(f"unix://{bench.root}/no.sock")).prepare(bench.sign(bench.spec()))
    except CloisterError as error:
        assert secret not in f"{error} {error.hint}"


def committed(bench: Bench, changes: list[str]) -> str:
    """An image like the sentinel's with one thing changed; its id."""
    api = docker.APIClient(bench.url)
    container = api.create_container(bench.site.sentinel)["Id"]
    try:
        return "sha256:" + str(api.commit(container, changes=changes)["Id"]).removeprefix("sha256:")
    finally:
        api.remove_container(container)


def sign_anything(plain: object) -> str:
    """What a core without `ContainerSpec`'s checks would send: a valid signature over any content."""
    from joserfc import jws
    from joserfc.jwk import OKPKey

    from mediator.signatures import ALGORITHM

    seed = b"verdict key of the tests".ljust(32)
    public = VERDICT_KEY.verify_key.raw
    key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "d": url64(seed), "x": url64(public)})
    header = {"alg": ALGORITHM, "kid": VERDICT_KEY.key_id, "typ": "cloister.container-spec"}
    return jws.serialize_compact(header, canonical.dumps(plain), key, algorithms=[ALGORITHM])


def url64(raw: bytes) -> str:
    import base64

    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_a_job_reads_by_its_group_what_nobody_else_may_pass_to(bench: Bench) -> None:
    a_job_reads_by_its_group_alone(bench)
