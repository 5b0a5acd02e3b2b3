"""The airlock on the staff's sockets: rows become messages, the configuration becomes the use cases' settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mediator.airlock.review import overdue
from node.core.airlock import airlock, analyse
from node.core.core import CoreProcess
from node.core.records import AirlockRow, ReviewRow
from node.ipc import airlock as verbs
from node.ipc.channel import Handler, Verb
from node.ipc.messages import Empty


def handlers(process: CoreProcess, actor: str) -> Mapping[Verb[Any, Any], Handler]:
    """Core's side of the airlock's verbs, for one role."""
    core = process.core

    def line(row: AirlockRow, reviews: tuple[ReviewRow, ...]) -> verbs.FileLine:
        late = bool(overdue([(row.state, row.created)], core.airlock.remind, core.clock()))
        return verbs.FileLine(
            file=row.file,
            run=row.run,
            permit=row.permit,
            permit_version=row.permit_version,
            name=row.name,
            outcome=json.loads(row.record)["outcome"],
            state=row.state.value,
            code=row.code,
            approvals=len({each.subject for each in reviews if each.decision == "approve"}),
            needed=max(row.needed, core.airlock.reviewers),
            late=late,
            created=row.created,
            updated=row.updated,
        )

    def shown(found: airlock.Shown) -> verbs.FileShown:
        row = found.row
        return verbs.FileShown(
            line=line(row, found.reviews),
            content=found.content,
            content_sha256=row.content_sha256,
            record=row.record,
            record_sha256=row.record_sha256,
            reviews=tuple(_review(each) for each in found.reviews),
        )

    def start(request: verbs.StartAnalysis) -> verbs.Started:
        instruction = analyse.start(core, request.run, actor)
        process.jobs.submit_unfinished()
        return verbs.Started(instruction=instruction.id)

    def listed(_request: Empty) -> verbs.Files:
        with core.store.read() as snapshot:
            rows = snapshot.airlock_files()
            return verbs.Files(items=tuple(line(row, snapshot.airlock_reviews(row.file)) for row in rows))

    def reviewed(request: verbs.ReviewText) -> verbs.Reviewed:
        return verbs.Reviewed(state=airlock.take_review(core, request.text, actor).value)

    def taken(request: verbs.FileId) -> Empty:
        airlock.taken(core, request.file, actor)
        return Empty()

    return {
        verbs.ANALYSIS_START: start,
        verbs.AIRLOCK_LIST: listed,
        verbs.AIRLOCK_SHOW: lambda request: shown(airlock.show(core, request.file, actor)),
        verbs.AIRLOCK_REVIEW: reviewed,
        verbs.AIRLOCK_TAKE: lambda request: shown(airlock.take(core, request.file, actor)),
        verbs.AIRLOCK_TAKEN: taken,
    }


def _review(row: ReviewRow) -> verbs.ReviewLine:
    return verbs.ReviewLine(
        subject=row.subject,
        key_id=row.key_id,
        decision="approve" if row.decision == "approve" else "refuse",
        why=row.why,
        text=row.text,
        time=row.time,
    )
