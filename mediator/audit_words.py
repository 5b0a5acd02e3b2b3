"""An audit record in words: who did what to what, under which permit, with which verdict and why.

Every word comes from the closed tables here and in `code_words`; what is not in them is an id of ours, shown as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from mediator import grammar
from mediator.audit import Action, AuditRecord, Verdict, epoch_of
from mediator.code_words import WORDS as CODE_WORDS
from mediator.errors import Code, Malformed
from mediator.roles import Role
from mediator.types import Kind


@dataclass(frozen=True)
class ActionWords:
    """How an action is told: `done` with what was done to a thing, `to_do` of what was decided or failed.

    `told` has the whole phrase for a verdict that these do not suit.
    """

    done: str
    to_do: str
    told: Mapping[Verdict, str] = field(default_factory=dict)


ACTIONS: Mapping[Action, ActionWords] = MappingProxyType(
    {
        Action.NODE_INIT: ActionWords("made the state of", "make the state of"),
        Action.NODE_START: ActionWords("started at", "start at"),
        Action.NODE_STOP: ActionWords("stopped at", "stop at", {Verdict.FAILED: "stopped, with a fault of"}),
        Action.PAUSE: ActionWords("paused", "pause"),
        Action.RESUME: ActionWords("ended the pause of", "end the pause of"),
        Action.ACCESS: ActionWords("looked at", "look at"),
        Action.KEY_ROTATE: ActionWords("changed the key", "change the key"),
        Action.DEID_KEY_RETIRE: ActionWords("destroyed", "destroy"),
        Action.ENROL: ActionWords("enrolled", "enrol"),
        Action.CERTIFICATE_ALARM: ActionWords("was warned about", "warn about", {Verdict.FAILED: "was warned about"}),
        Action.DOCUMENT_IMPORT: ActionWords("took in", "take in"),
        Action.PERMIT_ACCEPT: ActionWords("accepted the permit by", "accept the permit by"),
        Action.PERMIT_END: ActionWords("ended", "go on with", {Verdict.REFUSED: "ended the containers of"}),
        Action.IMAGE_ADD: ActionWords("took in the image", "take in the image"),
        Action.IMAGE_APPROVE: ActionWords("approved the image", "approve the image"),
        Action.IMAGE_WITHDRAW: ActionWords("withdrew the image", "withdraw the image"),
        Action.INGEST_ORDER: ActionWords("ordered", "order"),
        Action.INGEST_REPORT: ActionWords("ended", "finish"),
        Action.IMPORT_ADVANCE: ActionWords("went on with", "go on with"),
        Action.IMPORT_STOP: ActionWords("stopped", "stop"),
        Action.IMPORT_RETRY: ActionWords("tried again", "try again"),
        Action.IMPORT_GIVE_UP: ActionWords("gave up what waits of", "give up what waits of"),
        Action.STUDY_TAKE: ActionWords("took the de-identified study of", "take the de-identified study of"),
        Action.DATASET_PUBLISH: ActionWords("published the dataset version", "publish the dataset version"),
        Action.DATASET_WITHDRAW: ActionWords("withdrew the dataset version", "withdraw the dataset version"),
        Action.QUARANTINE_DESTROY: ActionWords("destroyed the originals of", "destroy the originals of"),
        Action.INSTRUCTION_RECEIVE: ActionWords("received", "take in"),
        Action.TASK_ADMIT: ActionWords("admitted", "admit"),
        Action.REFUSALS_COUNT: ActionWords("counted", "count", {Verdict.REFUSED: "refused more of the same:"}),
        Action.LEDGER_CHARGE: ActionWords("charged the ledger for", "charge the ledger for"),
        Action.CANARY: ActionWords(
            "attacked, and it held,", "attack", {Verdict.FAILED: "attacked, and it did not hold,"}
        ),
        Action.SELF_TEST: ActionWords("ran a job of nobody's in", "run a job of nobody's in"),
        Action.JOB_PREPARE: ActionWords("made a container for", "make a container for"),
        Action.JOB_START: ActionWords("gave to its container", "give to its container"),
        Action.JOB_PREEMPT: ActionWords("made room by putting back", "make room by putting back"),
        Action.JOB_STOP: ActionWords("stopped", "stop"),
        Action.JOB_PRODUCE: ActionWords("took the output of", "take the output of"),
        Action.JOB_END: ActionWords("ended", "finish", {Verdict.REFUSED: "ended without an output:"}),
        Action.RELEASE: ActionWords("released the output of", "release the output of"),
        Action.REDELIVER: ActionWords("released again the output of", "release again the output of"),
        Action.DELIVER: ActionWords("handed to the hub the answer to", "hand to the hub the answer to"),
        Action.AIRLOCK_CHECK: ActionWords("checked in the airlock", "keep in the airlock"),
        Action.AIRLOCK_REVIEW: ActionWords("reviewed in the airlock", "review in the airlock"),
        Action.AIRLOCK_RELEASE: ActionWords("handed out of the airlock", "hand out of the airlock"),
        Action.AIRLOCK_DELETE: ActionWords("deleted from the airlock", "delete from the airlock"),
        Action.WORK_DELETE: ActionWords("deleted", "delete"),
        Action.CHECKPOINT: ActionWords("signed", "sign"),
        Action.RECOVER: ActionWords("found after a restart", "write down"),
        Action.LOG_SET_BACK: ActionWords("found the log set back behind", "go on behind",
                                   {Verdict.REFUSED: "serves nothing: the log was set back behind"}),
        Action.EPOCH_OPEN: ActionWords("began", "begin"),
        Action.CLOCK_ACCEPT: ActionWords("accepted the clock as it stands:", "accept the clock as it stands:"),
    }
)  # fmt: skip

_VERDICTS: Mapping[Verdict, str] = {
    Verdict.ALLOWED: "decided to {to_do}",
    Verdict.REFUSED: "refused to {to_do}",
    Verdict.DONE: "{done}",
    Verdict.FAILED: "failed to {to_do}",
}

_ROLES = {Role.IT_ADMIN: "hospital IT", Role.DATA_STEWARD: "data steward", Role.AUDITOR: "auditor"}
_PROCESSES = {"core": "the node", "intake": "intake", "link": "the link", "broker": "the broker", "hub": "the hub"}
_UNKNOWN = "unknown"

_KINDS = "|".join(Kind)
_TASK = re.compile(
    rf"({grammar.IDENTIFIER})/({grammar.NUMBER})/({_KINDS})/([1-9][0-9]*)(?:@({grammar.HEX256}))?"
)  # fmt: skip
# what else an object looks like, and how it is told; the first that fits counts
_THINGS = (
    (r"site/(.+)", r"site \1"),
    (r"run-order/(.+)", r"run order \1"),
    (r"run/(.+)", r"run \1"),
    (r"releases/(.+)", r"the stored release \1"),
    (r"sandbox/(.+)", r"the sandbox \1"),
    (r"document/([0-9a-f]{64})", r"the document of SHA-256 \1"),
    (r"checkpoint/([0-9]+)", r"a checkpoint over \1 records"),
    (r"witness/([0-9]+)", r"the hub's line over \1 records"),
    (r"witness/([0-9]+)/([0-9]+)", r"epoch \1 with \2 records"),
    (r"certificate/(.+)", r"the certificate of \1"),
    (r"deid-key/(.+)", r"the de-identification key \1"),
    (r"log/(.+)", r"what \1 printed"),
    (r"airlock/(.+)", r"\1 in the airlock"),
    (r"clock/accepted", r"the hub says the same time, or nothing"),
    (r"clock/despite-hub", r"though the hub says another time"),
    (r"refusals/(.+)/([0-9]{4}-[0-9]{2}-[0-9]{2})/([0-9]+)", r"\3 on \2, of \1"),
    (r"(?:ingest/)?(ingest-[^/]+)/defaced-by/(.+)", r"import \1, of images that \2 is said to have defaced"),
    (r"(?:ingest/)?(ingest-[^/]+)/([a-z_]+)", r"import \1 (\2)"),
    (r"(?:ingest/)?(ingest-[^/]+)/(.+)", r"import \1 (\2)"),
    (r"(?:ingest/)?(ingest-.+)", r"import \1"),
    (r"(file-[^@]+)@([0-9a-f]{64})", r"\1 (SHA-256 \2)"),
    (r"(job-.+)", r"\1"),
)


class LogSubject(StrEnum):
    """What a data protection officer asks for by name: records that belong together."""

    LEFT = "left"
    DELETED = "deleted"
    PERMITS = "permits"
    REFUSED = "refused"
    PEOPLE = "people"


# a take-back shows beside what it takes back; that the hub has an answer (DELIVER) says of refusals as well
_LEFT: Mapping[Action, frozenset[Verdict]] = {
    Action.RELEASE: frozenset({Verdict.DONE, Verdict.REFUSED}),
    Action.REDELIVER: frozenset({Verdict.DONE, Verdict.REFUSED}),
    # the content is handed over under the one, and the other is written once it was taken
    Action.AIRLOCK_RELEASE: frozenset({Verdict.ALLOWED, Verdict.DONE}),
}
_DELETED = frozenset(
    {
        Action.QUARANTINE_DESTROY, Action.WORK_DELETE, Action.AIRLOCK_DELETE, Action.DATASET_WITHDRAW,
        Action.DEID_KEY_RETIRE,
    }
)  # fmt: skip
_PERMITS = frozenset({Action.DOCUMENT_IMPORT, Action.PERMIT_ACCEPT, Action.PERMIT_END})
_OVER = frozenset(
    {Code.PERMIT_REVOKED, Code.PERMIT_EXPIRED, Code.PERMIT_SUPERSEDED, Code.ACCEPTANCE_EXPIRED}
)  # fmt: skip


def belongs(record: AuditRecord, subject: LogSubject) -> bool:
    """Whether a record is of a subject.

    `left`: outputs released to the hub, those taken back again, and what went out of the airlock. `deleted`: what was
    destroyed. `permits`: documents that came in, acceptances, and whatever a revoked, superseded or expired permit
    ended or had refused. `refused`: every no. `people`: whatever a member of the hospital's staff did.
    """
    match subject:
        case LogSubject.LEFT:
            return record.verdict in _LEFT.get(record.action, ())
        case LogSubject.DELETED:
            return record.action in _DELETED and record.verdict is not Verdict.REFUSED
        case LogSubject.PERMITS:
            return record.action in _PERMITS or record.code in _OVER
        case LogSubject.REFUSED:
            return record.verdict is Verdict.REFUSED
        case LogSubject.PEOPLE:
            return role_of(record.actor) is not None


def role_of(actor: str) -> Role | None:
    """The staff role that an actor spoke in; none for a process of the node."""
    return next((role for role in Role if actor == role or actor.startswith(f"{role}.")), None)


def person_of(actor: str) -> str:
    """The person, as the hospital's configuration names them; empty where nobody is known by name."""
    role = role_of(actor)
    person = actor.removeprefix(f"{role}.") if role is not None and actor != role else ""
    return "" if person == _UNKNOWN else person


def sentence(record: AuditRecord) -> str:
    """A record in one sentence, without its number and time."""
    words = ACTIONS[record.action]
    verb = words.told.get(record.verdict) or _VERDICTS[record.verdict].format(done=words.done, to_do=words.to_do)
    said = f"{who(record.actor)} {verb} {thing(record)}"
    if record.permit:
        permit, _, version = record.permit.partition("@")
        said += f", under permit {permit} version {version}"
    if record.code:
        said += f": {CODE_WORDS[Code(record.code)]} ({record.code})"
    return said


def who(actor: str) -> str:
    """An actor in words: a person with their role, or the process of the node that acted by itself."""
    role = role_of(actor)
    if role is None:
        return _PROCESSES.get(actor, actor)
    person = person_of(actor)
    return f"{person} ({_ROLES[role]})" if person else f"somebody ({_ROLES[role]}, not known by name)"


def thing(record: AuditRecord) -> str:
    """What a record is about, in words."""
    try:
        epoch = epoch_of(record)
    except Malformed:  # the check finds it
        return record.object
    if epoch is not None:
        return f"epoch {epoch.number}, which keeps {epoch.kept} of {epoch.before.size} witnessed records"
    task = _TASK.fullmatch(record.object)
    if task is not None:
        run, number, _, kind, attempt, root = task.groups()
        said = f"task {kind} of run {run}, round {number}, attempt {attempt}"
        return f"{said}, as root id {root}" if root else said
    for pattern, words in _THINGS:
        match = re.fullmatch(pattern, record.object)
        if match is not None:
            return match.expand(words)
    return record.object
