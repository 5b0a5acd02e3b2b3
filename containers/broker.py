"""The broker: the only one that speaks to the container engine, and only in five verbs.

Who holds a rootful engine's socket is root, so the broker believes nobody: it takes a `ContainerSpec` with core's
signature, checks again what it can check, builds everything else from constants, and refuses and records the rest.
It keeps no state of its own: each container carries its signed spec as a label, so a restarted broker goes on where
the last one stopped, and what lacks this site's label or a spec of core's is nothing it would touch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

from containers import canary, gpu, podman, rooms, sandbox
from containers.engine import Container, ContainerEngine, EngineOffer, EngineUsers
from containers.runner import Endings, RunningContainer
from containers.sandbox import Role, SandboxPolicy
from mediator.errors import CloisterError, Code, Denied, Ended, EngineUnavailable, Reason
from mediator.ports import Clock, JobEvent, Prepared
from mediator.signatures import VerifyKey, open_signed
from mediator.types import ContainerSpec, OutputFile

# core and broker share a host; this is for a clock that is set while they run
CLOCK_TOLERANCE = timedelta(seconds=120)

Verb = Literal["prepare", "execute", "finalise", "terminate", "clean"]
Record = Callable[[Verb, str, str], None]
Build = Callable[[ContainerSpec, Role, SandboxPolicy, str], dict[str, Any]]


class Broker:
    """Implements `mediator.ports.Runner` on one engine.

    `record(verb, job, code)` hears of every verb and how it ended: `done`, or the code of the refusal.
    """

    def __init__(
        self,
        engine: ContainerEngine,
        site: SandboxPolicy,
        verdict_keys: Mapping[str, VerifyKey],
        clock: Clock,
        record: Record,
        build: Build = sandbox.create_arguments,
    ) -> None:
        self._engine = engine
        self._site = site
        self._keys = verdict_keys
        self._clock = clock
        self._record = record
        self._build = build
        self._endings = Endings()
        # an earlier broker may have left containers; from then on there is what this one starts
        self._may_run = True

    # --- the five verbs -----------------------------------------------------------------------------------------

    def prepare(self, signed_spec: str) -> Prepared:
        """Create (or adopt) the containers of a signed spec; none is started.

        1. Core signed it, and it is neither too old nor from the future.
        2. No limit is above the site's ceiling.
        3. Each mount's source is the job's own folder under its configured root, made here, and nobody but the broker
           or root can put another in its place.
        4. The engine can bound what it runs, has the processors and can give the GPUs. It holds the image under exactly
           this digest; it names a program for this processor and declares no volume (the engine would add one,
           writable and unbounded). A canary's and a self-test's image is the sentinel.
        5. Containers of this job that exist were made for this very spec.
        6. What the engine made is sealed, by its own account.
        """
        with self._recorded("prepare", "") as note:
            spec = open_signed(ContainerSpec, signed_spec, self._keys).document  # (1)
            note(spec.job)
            offer = self._engine.offer()
            if spec.purpose == "canary":
                self._lay_out_probe(spec, signed_spec, offer.users)
            elif (spec.data_dir, spec.in_dir) == rooms.folder_of(self._site.work_root, spec.job):
                rooms.make(self._site.work_root, spec.job)
            image_id = self._check(spec, offer)
            site = self._site_for(spec, offer)
            self._adopt(spec)  # (5)
            self._engine.create_volume(sandbox.volume_arguments(spec, site, offer.users.first))
            self._ensure(spec, signed_spec, "keeper", self._image_id(site.sentinel), site)
            arguments = self._ensure(spec, signed_spec, spec.purpose, image_id, site)
            facts = self._engine.facts(site.runtime_with(spec.gpu_devices))
            if spec.gpu_devices and site.gpus_by == "cdi":
                facts["cdi"] = offer.gpus.specs_digest()  # a driver's change is another sandbox, and asks for a canary
            return Prepared(spec.job, sandbox.fingerprint(arguments, facts))

    def execute(self, job: str) -> Iterator[JobEvent]:
        """Start the job if it was not, then yield what happens to it until it ends.

        Attaching again yields its events from the beginning: what was said about earlier tasks is said again.
        """
        with self._recorded("execute", job):
            self._may_run = True
            running = self._found(job)
            for container in (running.keeper, running.main):
                state = running.state(container)
                if state.get("Status") == "created":
                    self._check_mounts_again(running.spec)
                    self._start(running, container)
                elif state.get("Paused"):
                    self._engine.resume(container)
            return running.events()

    def finalise(self, job: str, task: int) -> Sequence[OutputFile]:
        """Freeze the job, copy `/out/<task>/` once, clear `/out`, resume the job if it still runs.

        A job whose output breaks the contract is killed while frozen: it does not run another instruction.
        """
        with self._recorded("finalise", job):
            return self._found(job).take(task)

    def terminate(self, job: str, grace_s: float) -> None:
        """Stop the job: SIGTERM, then SIGKILL after `grace_s`, rounded up to seconds. An unknown job needs no stop."""
        with self._recorded("terminate", job):
            found = self._engine.containers(self._site.site, job)
            if found:
                self._endings.note(job, "stopped")
            for container in sorted(found, key=lambda one: one.role == "keeper"):
                self._engine.stop(container.id, 0 if container.role == "keeper" else grace_s)

    def clean(self, keep: Sequence[str]) -> Sequence[str]:
        """Remove every container, volume and probe folder with this site's label whose job is not in `keep`.

        Folders under `work_root` are removed once core has emptied them.
        """
        with self._recorded("clean", ""):
            removed = set()
            for container in self._engine.containers(self._site.site):
                if container.job not in keep:
                    self._engine.remove(container.id)
                    removed.add(container.job)
            for name, job in self._engine.volumes(self._site.site).items():
                if job not in keep:
                    self._engine.remove_volume(name)
                    removed.add(job)
            for folder in sorted(self._site.probe_root.glob("[!.]*")):
                if folder.name not in keep:
                    canary.remove(folder.name, self._site.probe_root)
            rooms.remove_empty(self._site.work_root, keep)
            self._endings.forget_all_but(keep)
            return sorted(removed)

    def enforce_wall_time(self) -> None:
        """Kill every job beyond its spec's wall time; the broker's process calls it every second or so. The engine is
        not asked while there is no container that a broker could have started."""
        if not self._may_run:
            return
        self._may_run = False  # before the engine is asked: what is started meanwhile is looked at the next time
        try:
            there = self._engine.containers(self._site.site)
        except CloisterError:
            self._may_run = True
            raise
        self._may_run = self._may_run or bool(there)
        for container in there:
            spec = self._spec_of(container)
            if container.role != "keeper" and spec is not None:
                running = self._running(spec, keeper="", main=container.id)
                if running.overdue(running.state(container.id)):
                    running.end("time_limit")

    # --- checks -------------------------------------------------------------------------------------------------

    def _check(self, spec: ContainerSpec, offer: EngineOffer) -> str:
        """Checks (1) to (4) of `prepare`; the image's id, or `Denied` with every reason at once."""
        reasons = []
        now = self._clock()
        if not spec.issued - CLOCK_TOLERANCE <= now < spec.expires:  # (1)
            reasons.append(Reason(Code.SPEC_EXPIRED))
        if not spec.resources.within(self._site.ceiling):  # (2)
            reasons.append(Reason(Code.RESOURCES_EXCEEDED, "above the site's ceiling"))
        reasons += self._mount_reasons(spec)  # (3)
        reasons += self._group_reasons(spec, offer.users)
        if not offer.users.limited:  # (4)
            reasons.append(Reason(Code.NOT_SEALED, "a rootless engine bounds nothing on cgroup v1"))
        if spec.resources.cpus > offer.cpus:
            why = f"{spec.resources.cpus:g} CPUs are granted, and this machine has {offer.cpus}"
            reasons.append(Reason(Code.RESOURCES_EXCEEDED, why))
        image = self._engine.image(spec.image)
        if image is None:
            reasons.append(Reason(Code.IMAGE_NOT_APPROVED, "the engine holds no image with this digest"))
        elif image.volumes:
            reasons.append(Reason(Code.IMAGE_NOT_APPROVED, "the image declares a volume"))
        elif not image.has_program:
            reasons.append(Reason(Code.IMAGE_NOT_APPROVED, "the image names no program to start"))
        elif not image.runs_here:
            reasons.append(Reason(Code.IMAGE_NOT_APPROVED, "the image is for another processor"))
        if spec.purpose != "job" and spec.image != self._site.sentinel:
            reasons.append(Reason(Code.IMAGE_NOT_APPROVED, "what is no job is the sentinel's image"))
        if reasons or image is None:
            raise Denied(reasons)
        return image.id

    def _site_for(self, spec: ContainerSpec, offer: EngineOffer) -> SandboxPolicy:
        """The site with the way in which its engine gives these GPUs (4). Raises `Denied` if it cannot."""
        if not spec.gpu_devices:
            return self._site
        return replace(self._site, gpus_by=gpu.decide(offer.gpus, spec.gpu_devices, self._site.runtime))

    def _mount_reasons(self, spec: ContainerSpec) -> list[Reason]:
        root = self._site.probe_root if spec.purpose == "canary" else self._site.work_root
        if (spec.data_dir, spec.in_dir) != rooms.folder_of(root, spec.job):
            return [Reason(Code.MOUNT_NOT_PERMITTED, "a mount's source is not the job's own folder")]
        why = rooms.why_not(root, spec.job)
        return [Reason(Code.MOUNT_NOT_PERMITTED, why)] if why else []

    def _group_reasons(self, spec: ContainerSpec, users: EngineUsers) -> list[Reason]:
        """Whether a job could read what core gives to its group (3)."""
        given, there = self._site.group_outside, users.group_outside(self._site.gid)
        if given is None or there == given or spec.purpose == "canary":
            return []
        number = "a number it does not tell" if there is None else str(there)
        why = f"a job's group is {number} outside this engine's containers, and {given} by the configuration"
        return [Reason(Code.MOUNT_NOT_PERMITTED, f"{why} ([engine] job_group)")]

    def _check_mounts_again(self, spec: ContainerSpec) -> None:
        """Just before the engine mounts them: they were looked at when the container was made, and root may have
        changed them since."""
        if reasons := self._mount_reasons(spec):
            raise Denied(reasons)

    def _lay_out_probe(self, spec: ContainerSpec, signed_spec: str, users: EngineUsers) -> None:
        if (spec.data_dir, spec.in_dir) != rooms.folder_of(self._site.probe_root, spec.job):
            raise Denied(Reason(Code.MOUNT_NOT_PERMITTED, "a canary's folders are the broker's own"))
        kernel = {"gvisor": self._site.gvisor, "namespace": users.namespace}
        canary.lay_out(spec, signed_spec, self._site.probe_root, **kernel)

    def _image_id(self, digest: str) -> str:
        image = self._engine.image(digest)
        if image is None:
            raise EngineUnavailable("the sentinel's image is missing", hint="build or load it, then try again")
        return image.id

    def _adopt(self, spec: ContainerSpec) -> None:
        for container in self._engine.containers(self._site.site, spec.job):
            there = self._spec_of(container)
            if there is None or replace(there, issued=spec.issued, expires=spec.expires) != spec:
                raise Denied(Reason(Code.JOB_UNKNOWN, "a container of this job was made for another spec"))

    def _start(self, running: RunningContainer, container: str) -> None:
        """Start one of a job's two containers. What Podman gives by CDI, it shows once the container runs: not that,
        and the container is removed."""
        gpus = running.spec.gpu_devices if container == running.main else ()
        self._engine.start(container, with_gpus=bool(gpus))
        if gpus and self._engine.kind == "podman" and podman.nodes_differ(self._engine.inspect(container) or {}, gpus):
            self._engine.remove(container)
            raise Denied(Reason(Code.NOT_SEALED, "gpus"))

    def _ensure(
        self, spec: ContainerSpec, signed_spec: str, role: Role, image_id: str, site: SandboxPolicy
    ) -> dict[str, Any]:
        """Create the container of this role unless it exists; refuse and remove one that is not sealed (6)."""
        arguments = self._build(spec, role, site, image_id)
        profile = podman.seccomp_file(self._site.probe_root) if self._engine.kind == "podman" else None
        if profile is not None:
            arguments = podman.spoken(arguments, profile)
        found = [one.id for one in self._engine.containers(self._site.site, spec.job) if one.role == role]
        if not found:
            arguments["Labels"] = {**arguments["Labels"], sandbox.SPEC_LABEL: signed_spec}
            found = [self._engine.create(sandbox.container_name(spec.job, role, site.site), arguments)]
        inspect = self._engine.inspect(found[0]) or {}
        made = (inspect, spec, role, site, image_id)
        if missing := podman.unsealed(*made, profile) if profile is not None else sandbox.unsealed(*made):
            self._engine.remove(found[0])
            raise Denied([Reason(Code.NOT_SEALED, name) for name in missing])
        return arguments

    # --- what the engine knows ----------------------------------------------------------------------------------

    def _found(self, job: str) -> RunningContainer:
        """The job's two containers. Raises `Denied` unless both are there and core's."""
        containers = self._engine.containers(self._site.site, job)
        by_role = {("keeper" if one.role == "keeper" else "job"): one for one in containers}
        spec = self._spec_of(by_role["job"]) if "job" in by_role else None
        if spec is None or "keeper" not in by_role:
            raise Denied(Reason(Code.JOB_UNKNOWN))
        return self._running(spec, by_role["keeper"].id, by_role["job"].id)

    def _running(self, spec: ContainerSpec, keeper: str, main: str) -> RunningContainer:
        return RunningContainer(self._engine, self._clock, self._endings, spec, keeper, main)

    def _spec_of(self, container: Container) -> ContainerSpec | None:
        """The spec in its label, if core signed it for this job; long expired it may be."""
        try:
            spec = open_signed(ContainerSpec, container.signed_spec, self._keys).document
        except Exception:  # noqa: BLE001 - any container of the engine may have a label of this name, and anything in it
            return None
        return spec if spec.job == container.job else None

    @contextmanager
    def _recorded(self, verb: Verb, job: str) -> Iterator[Callable[[str], None]]:
        """Record how a verb ended; a refusal and an end are recorded by the code of their reason."""
        name = [job]
        try:
            yield name.append
        except CloisterError as error:
            self._record(verb, name[-1], _code(error))
            raise
        except Exception:
            self._record(verb, name[-1], "internal_error")
            raise
        self._record(verb, name[-1], "done")


def _code(error: CloisterError) -> str:
    if isinstance(error, Denied):
        return str(error.reasons[0].code)
    return str(error.reason.code) if isinstance(error, Ended) else error.code
