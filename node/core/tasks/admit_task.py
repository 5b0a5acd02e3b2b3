"""Gate 1, called from here and nowhere else: an instruction in, a decision that is written down out.

1. The instruction is opened with the hub's ring; what is not genuine is answered at once and leaves one record, and so
   does whatever meets an error that nobody foresaw: it ends that instruction, and never the link that brought it.
2. The very same call again (same text, same reply context) gets the same answer and does nothing.
3. In one transaction: the ledger is read, gate 1 asked, the decision recorded, the ledger charged, the job kept.
4. What came in touches the disk only after gate 1 said yes to it.
5. What is refused is answered at once. Its id and hash are kept and its reason is on record, for so many a day; the
   rest is counted (`node.core.refusals`). A yes costs the permit's rounds, but for attempts of one task: so many may
   be open at a time, and one release is delivered so often.
"""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from durable.files import creating_folder, write_inside
from federation.client.ports import MAX_REPLY_CONTEXT_BYTES
from mediator.admission import (
    AdmissionRequest,
    Admitted,
    DatasetFacts,
    NodeFacts,
    Redeliver,
    admit,
)
from mediator.audit import Action, Verdict
from mediator.capacity import Calendar
from mediator.errors import CloisterError, Code, Denied, HubCode, Malformed, NotNow, Reason
from mediator.jobs import JobStep
from mediator.ledger import Ledger, PriorRelease, Spending
from mediator.permit import open_acceptance, open_known_permits, open_permit, open_run_order
from mediator.signatures import KeyRing, Signed, open_signed
from mediator.sizes import reserve_bytes
from mediator.types import DataPermit, Instruction, Kind
from node.core import records
from node.core.context import CORE, Core, event, permit_name
from node.core.documents.documents import code_of
from node.core.refusals import INSTRUCTIONS, UNREAD, role_of
from node.core.store.documents import sha256_of
from node.core.store.reads import Reads
from node.core.store.writes import Tx
from node.core.tasks.privacy import NOT_ASKED, composed, spending_after
from node.core.tasks.release_output import redeliver, stored_release
from node.host.disk_errors import is_full

log = logging.getLogger(__name__)

# the header of a model's file: 1 MiB at most (mediator.tensors), 8 bytes of length
_HEADER_BYTES = (1 << 20) + 8
# a model for a permit we do not hold is read no further than this before it is refused
_UNKNOWN_MODEL_BYTES = 1 << 20
# an attempt brings a model along; a hub that fell three times in a round has asked four times
_OPEN_ATTEMPTS = 8
# those that reached no container cost nothing (a GPU was away, the node was paused), but each is kept
_ATTEMPTS = 64
# each redelivery is a signed envelope that is kept
_DELIVERIES = 64
MODEL = "model.safetensors"


def receive(core: Core, text: str, reply_context: bytes, model: Iterable[bytes]) -> HubCode | None:
    """Take an instruction in. None: the answer comes through the outbox; else what the hub is told at once.

    Raises `NotNow` when the upload broke off or the disk is full, `IntegrityBroken` when the node's own state is.
    """
    try:
        return _receive(core, text, reply_context, model)
    except (Denied, Malformed) as error:  # (1)
        return _refuse_unread(core, text, code_of(error))
    except CloisterError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and is_full(error):
            raise NotNow("the disk is full", hint="make room") from error
        log.exception("an instruction met an error nobody foresaw")  # (1)
        return _refuse_unread(core, text, Code.INTERNAL)


def _receive(core: Core, text: str, reply_context: bytes, model: Iterable[bytes]) -> HubCode | None:
    signed = open_signed(Instruction, text, core.trust.hub)  # (1)
    if len(reply_context) > MAX_REPLY_CONTEXT_BYTES:  # the link has refused it before
        raise Malformed("an instruction with more than a reply needs")
    if signed.document.task is Kind.ANALYSE:  # which starts here, and is nobody's outside
        raise Denied(Reason(Code.KIND_NOT_PERMITTED))
    with core.store.read() as snapshot:
        seen = snapshot.instruction(signed.document.id)
        limit = _model_limit(core, snapshot, signed.document)
    if seen is not None and _is_same(seen, text, reply_context):  # (2)
        return _answered_at_once(seen)
    content = _collect(model, limit)
    now = core.clock()  # an upload takes its time, and the instruction may have expired meanwhile
    with core.store.transaction(now) as tx:  # (3)
        if tx.instruction(signed.document.id) is not None:
            return _refuse_replayed(core, tx, signed)
        refusal = _decide(core, tx, signed, reply_context, content, now)
    return None if refusal is None else refusal.hub_code


def admission_request(
    core: Core, snapshot: Reads, signed: Signed[Instruction], model: bytes, now: datetime
) -> AdmissionRequest:
    """Everything gate 1 asks about, from one snapshot. A stored document that no longer opens counts as missing."""
    instruction, trust = signed.document, core.trust
    permit_row = snapshot.permit(instruction.permit, instruction.permit_version)
    acceptance_row = snapshot.acceptance(instruction.permit, instruction.permit_version)
    order_row, revoked = snapshot.run_order(instruction.run), core.revocations(snapshot)
    permit = None if permit_row is None else open_permit(permit_row.text, trust.committee)
    order = None
    if permit is not None and order_row is not None and _same_permit(order_row, permit.document):
        order = open_run_order(order_row.text, [permit.document])
    siblings = open_known_permits(
        (row.text for row in snapshot.permits() if row.permit == instruction.permit), trust.committee
    )
    return AdmissionRequest(
        instruction=signed,
        model=model,
        permit=permit,
        acceptance=None if acceptance_row is None else open_acceptance(acceptance_row.text, trust.stewards),
        order=order,
        revocations=revoked,
        policy=core.policy(snapshot),
        facts=NodeFacts(
            site=core.site,
            newest_audit=snapshot.newest_audit_time(),
            highest_revocation=0 if revoked is None else revoked.number,
            siblings=siblings,
            datasets=_datasets(core, snapshot, instruction, None if permit is None else permit.document),
            set_back=snapshot.set_back() is not None,
            opened=None if (epoch := snapshot.epoch()) is None else epoch.opened,
            ordered_before=snapshot.ordered_before(instruction.run),
        ),
        ledger=_ledger(snapshot, instruction),
        now=now,
    )


def ask_again(core: Core, instruction_text: str, model: bytes, *, computing: bool = True) -> Admitted | Redeliver:
    """Gate 1 once more, before a container is sought and right before a task is handed to it. Raises `Denied`.

    The attempt that is being served is not a replay of itself: only the ledger's `last_attempt` is set back. What is
    no longer `computing` is not held to the site's hours.
    """
    signed = _open(core, instruction_text)
    with core.store.read() as snapshot:
        request = admission_request(core, snapshot, signed, model, core.clock())
    if not computing:
        always = replace(core.schedule, calendar=Calendar())
        request = replace(request, policy=replace(request.policy, schedule=always))
    return admit(replace(request, ledger=replace(request.ledger, last_attempt=signed.document.attempt - 1)))


def receive_own(core: Core, make: Callable[[Reads, datetime], Instruction], actor: str) -> Instruction:
    """Take in an instruction for an analysis, signed by this node itself; `make` knows the earlier ones.

    Raises `Denied` with every reason; what is refused is kept and written down like an instruction of the hub's.
    """
    now = core.clock()
    with core.store.transaction(now) as tx:
        signed = _open(core, core.keys.verdict.sign(make(tx, now)))
        refusal = _decide(core, tx, signed, b"", b"", now, actor)
    if refusal is not None:
        raise refusal
    return signed.document


def _open(core: Core, text: str) -> Signed[Instruction]:
    """An instruction that was taken in: by the hub, or for an analysis by this node and nobody else."""
    own = core.keys.verdict.verify_key
    signed = open_signed(Instruction, text, KeyRing([*core.trust.hub.values(), own]))
    if (signed.document.task is Kind.ANALYSE) is not (signed.key_id == own.key_id):
        raise Denied(Reason(Code.UNTRUSTED_KEY, "the hub asks for no analysis, and the node for nothing else"))
    return signed


def job_folder(core: Core, job: str) -> Path:
    """Where a job's model and output stay until it is released."""
    return core.folders.jobs / job


def _decide(
    core: Core,
    tx: Tx,
    signed: Signed[Instruction],
    reply_context: bytes,
    model: bytes,
    now: datetime,
    actor: str = CORE,
) -> Denied | None:
    instruction = signed.document
    permit = permit_name(instruction.permit, instruction.permit_version)
    job = f"job-{secrets.token_hex(8)}"
    try:
        request = admission_request(core, tx, signed, model, now)
        verdict = admit(request)
        _check_room(core, tx, verdict)
    except Denied as denied:
        # a hub that is refused all day hides no refusal of the hospital's own people
        source = INSTRUCTIONS if actor == CORE else f"{role_of(actor)}/analysis"
        if core.refusals.keep(tx, source):  # (5)
            _keep_refused(tx, signed, reply_context, job, denied, actor)
        return denied
    received = event(Action.INSTRUCTION_RECEIVE, instruction.id, Verdict.DONE, permit=permit, actor=actor)
    tx.add_instruction(signed, reply_context, job, event=received)
    if isinstance(verdict, Redeliver):
        tx.advance(
            job, JobStep.REDELIVER, event=event(Action.REDELIVER, instruction.id, Verdict.ALLOWED, permit=permit)
        )
        redeliver(core, tx, job, verdict)
    else:
        _keep_model(job_folder(core, job), model)  # (4)
        admitted = event(Action.TASK_ADMIT, instruction.id, Verdict.ALLOWED, permit=permit)
        tx.advance(job, JobStep.ADMIT, event=admitted, dataset_version=verdict.dataset_version)
        _charge(tx, verdict, permit)
    return None


def _check_room(core: Core, tx: Tx, verdict: Admitted | Redeliver) -> None:
    """Raise `Denied` for an attempt that would only pile up beside others of its task (5)."""
    asked = verdict.instruction
    task = (asked.run, asked.round, asked.task)
    if isinstance(verdict, Redeliver):
        stored_release(core, tx, asked)
        if tx.releases_of(*task) >= _DELIVERIES:
            raise Denied(Reason(Code.TOO_MANY, f"delivered {_DELIVERIES} times"))
    elif tx.attempts_open(*task) >= _OPEN_ATTEMPTS:
        # what is open goes on: the hub may ask again, and loses no round
        raise Denied(Reason(Code.TOO_MANY_OPEN, f"{_OPEN_ATTEMPTS} attempts are open"))
    elif tx.attempts_admitted(*task) >= _ATTEMPTS:
        raise Denied(Reason(Code.TOO_MANY, f"asked {_ATTEMPTS} times"))


def _keep_refused(
    tx: Tx, signed: Signed[Instruction], reply_context: bytes, job: str, refusal: Denied, actor: str
) -> None:
    instruction, code = signed.document, refusal.reasons[0].code
    permit = permit_name(instruction.permit, instruction.permit_version)
    received = event(Action.INSTRUCTION_RECEIVE, instruction.id, Verdict.DONE, permit=permit, actor=actor)
    tx.add_instruction(signed, reply_context, job, event=received)
    refused = event(Action.TASK_ADMIT, instruction.id, Verdict.REFUSED, permit=permit, code=code)
    tx.refuse_at_once(instruction.id, job, code, refusal.hub_code, event=refused)


def _is_same(seen: records.InstructionRow, text: str, reply_context: bytes) -> bool:
    return (seen.text_sha256, seen.context_sha256) == (sha256_of(text.encode()), sha256_of(reply_context))


def _answered_at_once(seen: records.InstructionRow) -> HubCode | None:
    """The answer that was given when it came; None where it comes, or came, through the outbox."""
    return seen.hub_code if seen.state == "refused" and not seen.text else None


def _charge(tx: Tx, admitted: Admitted, permit: str) -> None:
    """Charge the ledger before the job; nothing where an earlier attempt was charged."""
    charge, instruction, privacy = admitted.charge, admitted.instruction, admitted.permit.terms.privacy
    if charge is None:
        return
    row = records.NewCharge(
        permit=instruction.permit,
        permit_version=instruction.permit_version,
        run=charge.run,
        round=charge.round,
        task=charge.task,
        size_bytes=charge.size_bytes,
        epsilon=0.0,
        dataset=charge.dataset,
        noise_multiplier=charge.noise_multiplier,
    )
    if privacy is not None and charge.noise_multiplier is not None:
        before = dict(tx.noised(charge.dataset, instruction.permit))
        after = before | {charge.noise_multiplier: before.get(charge.noise_multiplier, 0) + 1}
        row = replace(row, epsilon=composed(after, privacy.delta) - composed(before, privacy.delta))
    tx.charge(row, event=event(Action.LEDGER_CHARGE, instruction.id, Verdict.DONE, permit=permit))


def _ledger(snapshot: Reads, instruction: Instruction) -> Ledger:
    run, round_, task = instruction.run, instruction.round, instruction.task
    release = snapshot.find_release(run, round_, task)
    return Ledger(
        rounds_charged=snapshot.rounds_charged(instruction.permit),
        bytes_charged=snapshot.bytes_charged(instruction.permit),
        dataset_version=snapshot.run_dataset_version(run),
        task_charged=_is_charged(snapshot, instruction),
        last_attempt=snapshot.last_attempt(run, round_, task),
        attempts_started=snapshot.attempts_started(instruction),
        release=None if release is None else PriorRelease(release.instruction, release.model_sha256),
        held=snapshot.is_held(run),
    )


def _is_charged(snapshot: Reads, instruction: Instruction) -> bool:
    return snapshot.charged(instruction.permit, instruction.run, instruction.round, instruction.task) is not None


def _same_permit(order: records.RunOrderRow, permit: DataPermit) -> bool:
    return (order.permit, order.permit_version) == (permit.permit, permit.permit_version)


def _datasets(core: Core, snapshot: Reads, instruction: Instruction, permit: DataPermit | None) -> list[DatasetFacts]:
    """Every version there is, and what the datasets that the permit covers have spent."""
    rows = snapshot.dataset_versions()
    covered = frozenset() if permit is None else frozenset(permit.versions_of(core.site))
    charged, spent = _is_charged(snapshot, instruction), dict[str, Spending]()
    for name in {row.dataset for row in rows if row.dataset_version in covered}:
        if permit is not None:
            spent[name] = spending_after(
                snapshot, permit, instruction.task, name, charged=charged, delta=core.privacy.delta
            )
    return [_dataset_facts(row, spent.get(row.dataset, NOT_ASKED)) for row in rows]


def _dataset_facts(row: records.DatasetVersionRow, spending: Spending) -> DatasetFacts:
    return DatasetFacts(
        version=row.dataset_version,
        dataset=row.dataset,
        project=row.project,
        published=row.created,
        train_studies=row.counts.get("train", 0),
        test_studies=row.counts.get("test", 0),
        withdrawn=row.withdrawn is not None,
        spending=spending,
    )


def _model_limit(core: Core, snapshot: Reads, instruction: Instruction) -> int:
    """The most bytes worth reading: the permit's tensors and a header; one megabyte where there is no permit."""
    row = snapshot.permit(instruction.permit, instruction.permit_version)
    if row is None:
        return _UNKNOWN_MODEL_BYTES
    permit = open_permit(row.text, core.trust.committee).document
    return reserve_bytes(permit.tensors, Kind.TRAIN) + _HEADER_BYTES


def _collect(chunks: Iterable[bytes], limit: int) -> bytes:
    """The upload's bytes; what lies beyond `limit` is read (the sender must hear an answer) and thrown away.

    A cut model has another hash than the instruction names, so gate 1 refuses it.
    """
    kept, size = [], 0
    for chunk in chunks:
        size += len(chunk)
        if size <= limit:
            kept.append(chunk)
    return b"".join(kept)


def _keep_model(folder: Path, model: bytes) -> None:
    with creating_folder(folder) as part:
        write_inside(part / MODEL, model)


def forget(core: Core, job: str) -> None:
    """Delete a job's model and output."""
    shutil.rmtree(job_folder(core, job), ignore_errors=True)


def _refuse_replayed(core: Core, tx: Tx, signed: Signed[Instruction]) -> HubCode:
    instruction = signed.document
    permit = permit_name(instruction.permit, instruction.permit_version)
    code = Code.INSTRUCTION_REPLAYED
    if core.refusals.keep(tx, INSTRUCTIONS):
        tx.record(event=event(Action.TASK_ADMIT, instruction.id, Verdict.REFUSED, permit=permit, code=code))
    return HubCode.REFUSED_INSTRUCTION


def _refuse_unread(core: Core, text: str, code: Code) -> HubCode:
    digest = sha256_of(text.encode("utf-8", "replace"))
    refused = event(Action.INSTRUCTION_RECEIVE, f"document/{digest}", Verdict.REFUSED, code=code)
    core.refusals.record(core.store, core.clock(), UNREAD, refused)
    return HubCode.INTERNAL if code is Code.INTERNAL else HubCode.REFUSED_INSTRUCTION
