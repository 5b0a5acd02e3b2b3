"""The airlock: gate 2 for the files of analyses, called from here and nowhere else; reviews, release, deletion.

No content, no name of a file and no reviewer's word reaches the log: a record names the file's own id and the hash of
what may leave, so that what was handed out can be matched to who decided it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from mediator import canonical
from mediator.admission import Admitted
from mediator.airlock.decide import AirlockRequest, CheckedFile, check
from mediator.airlock.review import FileEvent, FileFacts, FileState, Review, overdue, review, review_id
from mediator.audit import Action, Verdict
from mediator.disclosure import NearCount
from mediator.errors import Code, Denied, Malformed, Reason, UsageFault
from mediator.jobs import JobStep
from mediator.permit import open_permit
from mediator.signatures import Signed, VerifyKey, open_signed
from mediator.types import OutputFile
from node.core import counts
from node.core.context import Core, event, permit_name
from node.core.documents.documents import code_of
from node.core.records import AirlockRow, JobRow
from node.core.refusals import role_of
from node.core.store.airlock import new_airlock_file
from node.core.store.reads import Reads
from node.core.store.writes import Tx
from node.core.tasks.permit_basis import permit_ended, standing
from node.host.versions import read_manifest
from node.ipc.airlock import FileLine, NewReview, ReviewRow, ShownFile

# What ends a permit for good. A list that is late, a clock that is wrong, or a permit that is to be accepted anew keeps
# files where they are.
_OVER = frozenset(
    {
        Code.PERMIT_EXPIRED, Code.PERMIT_REVOKED, Code.PERMIT_SUPERSEDED, Code.ACCEPTANCE_EXPIRED,
    }
)  # fmt: skip


def hold(core: Core, job: JobRow, admitted: Admitted, files: Sequence[OutputFile]) -> None:
    """Ask gate 2 about an analysis's output, and keep every file with its record. Raises `Denied` for no output."""
    rules, instruction = admitted.permit.terms.analysis, admitted.instruction
    if rules is None:  # gate 1 has asked, a moment ago
        raise Denied(Reason(Code.KIND_NOT_PERMITTED, "the permit has no rules for analyses"))
    with core.counts_lock:
        with core.store.read() as snapshot:
            version, policy = snapshot.dataset_version(admitted.dataset_version), core.policy(snapshot)
            earlier = counts.earlier(snapshot, admitted)
        if version is None or version.withdrawn is not None:
            raise Denied(Reason(Code.DATASET_MISSING))
        studies = read_manifest(core.folders.datasets / version.folder).studies
        checked = check(
            AirlockRequest(
                site=core.site,
                run=instruction.run,
                dataset_version=admitted.dataset_version,
                rules=policy.narrow(rules),
                patients=len({study.patient for study in studies if study.split == admitted.split}),
                identifiers=frozenset(name for study in studies for name in (study.study, study.patient)),
                files=files,
                earlier=earlier,
            )
        )
        permit = permit_name(admitted.permit.terms.permit, admitted.permit.terms.permit_version)
        with core.store.transaction(core.clock()) as tx:
            for each in checked:
                _keep(tx, job, admitted, each, permit)
            tx.advance(job.job, JobStep.HOLD, event=event(Action.JOB_END, instruction.id, Verdict.DONE, permit=permit))


def show(core: Core, file: str, actor: str) -> ShownFile:
    """A file to look at. Who looked stands in the log. Raises `UsageFault` for a file that is not there."""
    with core.store.transaction(core.clock()) as tx:
        row = _row(tx, file)
        permit = permit_name(row.permit, row.permit_version)
        tx.record(event=event(Action.ACCESS, f"airlock/{file}", Verdict.DONE, permit=permit, actor=actor))
        near = counts.near_of(tx.airlock_near(file))
        return _shown(core, row, tx.airlock_content(file) or b"", tx.airlock_reviews(file), near)


def take_review(core: Core, text: str, actor: str) -> FileState:
    """A person's signed review: the file's state after it. Raises `Denied` or `Malformed`, recorded either way."""
    try:
        signed = open_signed(Review, text, core.airlock.ring)
        with core.store.transaction(core.clock()) as tx:
            return _reviewed(core, tx, signed, actor)
    except (Denied, Malformed) as error:
        # the text may be a stranger's: only its hash is written down
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        said_no = event(
            Action.AIRLOCK_REVIEW, f"document/{digest}", Verdict.REFUSED, code=code_of(error), actor=actor
        )  # fmt: skip
        core.refusals.record(core.store, core.clock(), f"{role_of(actor)}/review", said_no)
        raise


def take(core: Core, file: str, actor: str) -> ShownFile:
    """What may leave of an approved file, on its way to whoever fetches it; `taken` says that it arrived.

    Asked again here: the node is not paused, the permit is live, the data not withdrawn. Raises `Denied`, recorded.
    """
    with core.store.transaction(core.clock()) as tx:
        row = _row(tx, file)
        content, permit = tx.airlock_content(file), permit_name(row.permit, row.permit_version)
        reason = _may_not_leave(core, tx, row)
        verdict = Verdict.ALLOWED if reason is None else Verdict.REFUSED
        code = None if reason is None else reason.code
        about = f"{file}@{row.content_sha256}" if reason is None else file
        asked = event(Action.AIRLOCK_RELEASE, about, verdict, permit=permit, code=code, actor=actor)
        if reason is None:
            tx.hand_out(file, event=asked)
        elif core.refusals.keep(tx, f"{role_of(actor)}/release"):
            tx.record(event=asked)
        reviews = tx.airlock_reviews(file)
    if reason is not None or content is None:
        raise Denied(reason or Reason(Code.FILE_MISSING))
    return _shown(core, row, content, reviews)


def taken(core: Core, file: str, actor: str) -> None:
    """The file was fetched: it is released, and its content deleted here. Twice is as good."""
    with core.store.transaction(core.clock()) as tx:
        row = _row(tx, file)
        if row.state is FileState.RELEASED:
            return
        if row.state is not FileState.APPROVED:
            raise Denied(Reason(Code.REVIEW_MISMATCH, f"the file is {row.state.value}"))
        permit = permit_name(row.permit, row.permit_version)
        about = f"{file}@{row.content_sha256}"
        done = event(Action.AIRLOCK_RELEASE, about, Verdict.DONE, permit=permit, actor=actor)
        tx.advance_airlock_file(file, FileEvent.RELEASE, event=done)
        tx.record(event=event(Action.AIRLOCK_DELETE, file, Verdict.DONE, permit=permit))


def tend(core: Core) -> None:
    """Delete what waited too long, and whatever belongs to a permit that has ended. Safe to repeat."""
    now = core.clock()
    with core.store.read() as snapshot:
        waiting = snapshot.airlock_files(waiting=True)
        permits = {(row.permit, row.permit_version) for row in waiting}
        ended = {permit: permit_ended(core, snapshot, *permit) for permit in permits}
    for row in waiting:
        code = ended[row.permit, row.permit_version]
        if code in _OVER:
            happened = FileEvent.REFUSE
        elif now - row.created > core.airlock.expire:
            happened, code = FileEvent.EXPIRE, Code.REVIEW_OVERDUE
        else:
            continue
        permit = permit_name(row.permit, row.permit_version)
        with core.store.transaction(now) as tx:
            if _row(tx, row.file).state is row.state:  # nobody decided it meanwhile
                gone = event(Action.AIRLOCK_DELETE, row.file, Verdict.DONE, permit=permit, code=code)
                tx.advance_airlock_file(row.file, happened, event=gone, code=code)


def waits(core: Core, snapshot: Reads) -> tuple[int, int]:
    """How many files wait for people, and how many of them longer than the hospital wants."""
    waiting = [(row.state, row.created) for row in snapshot.airlock_files(waiting=True)]
    return len(waiting), overdue(waiting, core.airlock.remind, core.clock())


def line(core: Core, row: AirlockRow, reviews: Sequence[ReviewRow]) -> FileLine:
    """A file as the hospital's people see it in a list."""
    return FileLine(
        file=row.file,
        run=row.run,
        permit=row.permit,
        permit_version=row.permit_version,
        name=row.name,
        outcome=json.loads(row.record)["outcome"],
        state=row.state,
        code=row.code,
        approvals=len({each.subject for each in reviews if each.decision == "approve"}),
        needed=max(row.needed, core.airlock.reviewers),
        late=bool(overdue([(row.state, row.created)], core.airlock.remind, core.clock())),
        created=row.created,
        updated=row.updated,
    )


def _shown(
    core: Core, row: AirlockRow, content: bytes, reviews: tuple[ReviewRow, ...], near: tuple[NearCount, ...] = ()
) -> ShownFile:
    told = line(core, row, reviews)
    return ShownFile(told, content, row.content_sha256, row.record, row.record_sha256, reviews, near)


def _keep(tx: Tx, job: JobRow, admitted: Admitted, checked: CheckedFile, permit: str) -> None:
    record = canonical.encode(checked.record).decode("utf-8")
    name, needed = checked.record.name, checked.record.rules.reviewers
    near = counts.near_text(checked.near)
    new = new_airlock_file(job, name, record, checked.content, needed=needed, near=near)
    shows = counts.shown(new.file, name, admitted, checked.counts)
    happened = FileEvent.CHECK if checked.code is None else FileEvent.REFUSE
    verdict = Verdict.ALLOWED if checked.code is None else Verdict.REFUSED
    about = f"{new.file}@{new.record_sha256}"
    asked = event(Action.AIRLOCK_CHECK, about, verdict, permit=permit, code=checked.code)
    tx.add_airlock_file(new, happened, shows, event=asked, code=checked.code)


def _reviewed(core: Core, tx: Tx, signed: Signed[Review], actor: str) -> FileState:
    document = signed.document
    row = tx.airlock_file(document.file)
    if row is None:
        raise Denied(Reason(Code.REVIEW_MISMATCH, "for a file that is not here"))
    subject = core.airlock.subjects.get(signed.key_id, "")
    happened = review(signed, core.airlock.subjects, _facts(core, tx, row), tx.now)
    about = f"{row.file}@{review_id(signed)}"
    verdict = Verdict.REFUSED if happened is FileEvent.REFUSE else Verdict.ALLOWED
    code = Code.REVIEW_REFUSED if happened is FileEvent.REFUSE else None
    permit = permit_name(row.permit, row.permit_version)
    new = NewReview(
        sha256=review_id(signed),
        file=row.file,
        subject=subject,
        key_id=signed.key_id,
        decision=document.decision,
        why=document.why,
        text=signed.text,
    )
    decided = event(Action.AIRLOCK_REVIEW, about, verdict, permit=permit, code=code, actor=actor)
    state = tx.add_review(new, happened, event=decided)
    if state is FileState.REFUSED:
        tx.record(event=event(Action.AIRLOCK_DELETE, row.file, Verdict.DONE, permit=permit, code=code))
    return state


def _facts(core: Core, snapshot: Reads, row: AirlockRow) -> FileFacts:
    permit, reviews = snapshot.permit(row.permit, row.permit_version), snapshot.airlock_reviews(row.file)
    if permit is None:
        raise Denied(Reason(Code.PERMIT_MISSING))
    persons = open_permit(permit.text, core.trust.committee).document.persons
    keys = [VerifyKey.from_text(person.public_key).key_id for person in persons]
    return FileFacts(
        site=core.site,
        file=row.file,
        content_sha256=row.content_sha256,
        record_sha256=row.record_sha256,
        state=row.state,
        # the hospital may have raised the number since
        needed=max(row.needed, core.airlock.reviewers),
        requesters=frozenset([*keys, *(person.subject for person in persons)]),
        approved_by=frozenset(each.subject for each in reviews if each.decision == "approve"),
        reviewed=frozenset(each.sha256 for each in reviews),
    )


def _may_not_leave(core: Core, snapshot: Reads, row: AirlockRow) -> Reason | None:
    if row.state is not FileState.APPROVED:
        return Reason(Code.REVIEW_MISMATCH, f"the file is {row.state.value}")
    if core.paused(snapshot):
        return Reason(Code.HOSPITAL_PAUSED)
    found = standing(core, snapshot, row.permit, row.permit_version)
    if found is None:
        return Reason(Code.PERMIT_MISSING)
    if code := found.ended(core):
        return Reason(code)
    job = snapshot.job(row.job)
    version = None if job is None or job.dataset_version is None else snapshot.dataset_version(job.dataset_version)
    if version is None or version.withdrawn is not None:
        return Reason(Code.DATASET_MISSING, "the data was withdrawn")
    if code := found.exposes(snapshot, [version.dataset]):
        return Reason(code, "a privacy budget protects the data meanwhile")
    return None


def _row(snapshot: Reads, file: str) -> AirlockRow:
    row = snapshot.airlock_file(file)
    if row is None:
        raise UsageFault("there is no such file in the airlock", hint="cloister node airlock list")
    return row
