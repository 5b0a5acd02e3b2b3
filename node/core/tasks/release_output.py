"""Gate 2, called from here and nowhere else: what a container left behind in, a signed envelope or a refusal out.

Decided is written down before done: first `release allowed`, then the objects reach the disk, then `release done`
with the root id that the hub will hold. What is released twice is the same bytes: a redelivery takes what is stored.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from durable.files import creating_folder, write_inside
from mediator.admission import Admitted, Redeliver
from mediator.audit import Action, Verdict
from mediator.errors import Code, Denied, IntegrityBroken, Reason
from mediator.jobs import JobStep
from mediator.permit import EnforcedPermit
from mediator.release.decide import ReleaseRequest, envelope, held_counts, noise_bytes, release
from mediator.types import Instruction, Kind, OutputFile, ReleasedObject
from node.core import counts, records
from node.core.context import Core, event, permit_name
from node.core.counts import RoundToJudge
from node.core.store.reads import Reads
from node.core.store.writes import Tx

_INDEX = "files.json"


def keep_output(folder: Path, files: Sequence[OutputFile]) -> None:
    """Store a task's output for gate 2, under names of our own, so that a crash costs no computation."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)  # kept before the job's step could be written down, and computed again since
    with creating_folder(out) as part:
        for number, file in enumerate(files):
            write_inside(part / str(number), file.content)
        write_inside(part / _INDEX, json.dumps([file.name for file in files]).encode())


def kept_output(folder: Path) -> list[OutputFile]:
    """The output stored for gate 2. Raises `IntegrityBroken` when it is not there."""
    try:
        names = json.loads((folder / "out" / _INDEX).read_bytes())
        return [OutputFile(name, (folder / "out" / str(number)).read_bytes()) for number, name in enumerate(names)]
    except OSError as error:
        raise IntegrityBroken("the stored output of a job is not there") from error


def release_output(core: Core, job: records.JobRow, admitted: Admitted, given: bytes, files: list[OutputFile]) -> None:
    """Ask gate 2 about a produced output and release it. Raises `Denied`; the caller writes the refusal down.

    Counts too near those that left before go to the hospital's reviewers, and the output is refused meanwhile.
    """
    instruction, permit = admitted.instruction, admitted.permit
    training = instruction.task is Kind.TRAIN
    with core.counts_lock:
        with core.store.read() as snapshot:
            earlier = counts.earlier(snapshot, admitted)
        request = ReleaseRequest(
            permit=permit,
            task=instruction.task,
            files=files,
            given=given,
            given_sha256=instruction.model_sha256,
            byte_limit=admitted.byte_limit,
            noise=core.random_bytes(noise_bytes(permit)) if training else b"",
            dataset_version=admitted.dataset_version,
            earlier=earlier,
        )
        try:
            released = release(request)
        except Denied as denied:
            _ask_people(core, job, admitted, request, denied)
            raise
        root, objects = core.codec.encode(instruction.task, released.tensors, released.metrics)
        signed = core.keys.release.sign(
            envelope(permit, instruction, root, core.codec.listing(objects), admitted.byte_limit)
        )
        with core.store.transaction(core.clock()) as tx:
            allowed = event(Action.RELEASE, instruction.id, Verdict.ALLOWED, permit=_name(permit))
            new = counts.of_round(admitted, released.counts, earlier)
            tx.advance(job.job, JobStep.RELEASE, event=allowed, counts=new)
    folder = store_objects(core.folders.releases / instruction.run, instruction, objects)
    row = _row(instruction, permit, root, core.codec.listing(objects), folder, signed)
    with core.store.transaction(core.clock()) as tx:
        _add(tx, row, job.job, Action.RELEASE, permit)


def _ask_people(core: Core, job: records.JobRow, admitted: Admitted, request: ReleaseRequest, denied: Denied) -> None:
    if all(reason.code is Code.DIFFERENCING for reason in denied.reasons) and (held := held_counts(request)):
        counts.ask_people(core, job, admitted, RoundToJudge(held.counts, held.pairs, held.findings, held.content))


def redeliver(core: Core, tx: Tx, job: str, verdict: Redeliver) -> None:
    """Envelop a stored release anew for a later attempt: the same objects, nothing computed, nothing charged."""
    instruction, permit = verdict.instruction, verdict.permit
    stored = stored_release(core, tx, instruction)
    signed = core.keys.release.sign(envelope(permit, instruction, stored.root, stored.objects, verdict.byte_limit))
    row = _row(instruction, permit, stored.root, stored.objects, stored.folder, signed)
    _add(tx, row, job, Action.REDELIVER, permit)


def stored_release(core: Core, snapshot: Reads, instruction: Instruction) -> records.ReleaseRow:
    """The release of an instruction's task. Raises `Denied` where its objects were deleted, after a revocation say:
    one round gives one release, so it is not computed again."""
    stored = snapshot.find_release(instruction.run, instruction.round, instruction.task)
    if stored is None or not (core.folders.releases / stored.folder).is_dir():
        raise Denied(Reason(Code.ROUND_ALREADY_SERVED, "its release was deleted"))
    return stored


def store_objects(run_folder: Path, instruction: Instruction, objects: Mapping[str, bytes]) -> str:
    """Write released objects, each a file named by its id, whole or not at all; the folder's name below `releases/`."""
    name = f"{instruction.round}-{instruction.task.value}"
    shutil.rmtree(run_folder / name, ignore_errors=True)  # left by a crash before the release was written down
    run_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with creating_folder(run_folder / name) as part:
        for object_id, content in objects.items():
            write_inside(part / object_id, content)
    return f"{run_folder.name}/{name}"


def _row(
    instruction: Instruction, permit: EnforcedPermit, root: str, objects: tuple[ReleasedObject, ...],
    folder: str, signed: str,
) -> records.NewRelease:  # fmt: skip
    return records.NewRelease(
        instruction=instruction.id,
        permit=permit.terms.permit,
        permit_version=permit.terms.permit_version,
        run=instruction.run,
        round=instruction.round,
        task=instruction.task,
        attempt=instruction.attempt,
        model_sha256=instruction.model_sha256,
        root=root,
        objects=objects,
        folder=folder,
        envelope=signed,
    )


def _add(tx: Tx, row: records.NewRelease, job: str, action: Action, permit: EnforcedPermit) -> None:
    # the record holds the root id: what the hub holds can be matched to this decision
    done = event(action, f"{row.instruction}@{row.root}", Verdict.DONE, permit=_name(permit))
    tx.add_release(row, job, event=done)


def _name(permit: EnforcedPermit) -> str:
    return permit_name(permit.terms.permit, permit.terms.permit_version)
