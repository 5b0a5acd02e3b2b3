"""The life of an import, and of each study in it, as two tables.

An import is a row of core's: what is not in the row did not happen. A study is a row of intake's, in the import's own
database. `TRANSITIONS` and `STUDY_TRANSITIONS` say where each step leads. Nothing of either is held in memory alone:
`AFTER_RESTART` says where a row found after a crash continues.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from mediator import transitions


class ImportState(StrEnum):
    ORDERED = "ordered"  # the order is on record; intake has not begun
    TAKING_IN = "taking_in"  # originals are numbered, sealed in quarantine, and asked whose they are
    DEIDENTIFYING = "deidentifying"  # study by study: gate 0, handed over, forgotten
    WAITING = "waiting"  # what is left met a defect of ours: its originals stay sealed until it is tried again
    GIVING_UP = "giving_up"  # a person decided against waiting: what is left is destroyed
    PUBLISHING = "publishing"  # everything is handed over, no original is left; core makes the version
    STOPPING = "stopping"  # a person ended it: what was taken in is being destroyed
    PUBLISHED = "published"
    FAILED = "failed"
    STOPPED = "stopped"


class ImportStep(StrEnum):
    TAKE_IN = "take_in"
    DEIDENTIFY = "deidentify"
    WAIT = "wait"
    RETRY = "retry"  # by a newer version, or because somebody said so
    GIVE_UP = "give_up"
    REPORT = "report"
    PUBLISH = "publish"
    STOP = "stop"
    DESTROY = "destroy"  # nothing of a stopped import is left
    FAIL = "fail"


IMPORT_ENDED = frozenset({ImportState.PUBLISHED, ImportState.FAILED, ImportState.STOPPED})

TRANSITIONS: Mapping[tuple[ImportState, ImportStep], ImportState] = {
    (ImportState.ORDERED, ImportStep.TAKE_IN): ImportState.TAKING_IN,
    (ImportState.ORDERED, ImportStep.STOP): ImportState.STOPPING,
    (ImportState.ORDERED, ImportStep.FAIL): ImportState.FAILED,
    (ImportState.TAKING_IN, ImportStep.DEIDENTIFY): ImportState.DEIDENTIFYING,
    (ImportState.TAKING_IN, ImportStep.STOP): ImportState.STOPPING,
    (ImportState.TAKING_IN, ImportStep.FAIL): ImportState.FAILED,
    (ImportState.DEIDENTIFYING, ImportStep.WAIT): ImportState.WAITING,
    (ImportState.DEIDENTIFYING, ImportStep.REPORT): ImportState.PUBLISHING,
    (ImportState.DEIDENTIFYING, ImportStep.STOP): ImportState.STOPPING,
    (ImportState.DEIDENTIFYING, ImportStep.FAIL): ImportState.FAILED,
    (ImportState.WAITING, ImportStep.RETRY): ImportState.DEIDENTIFYING,
    (ImportState.WAITING, ImportStep.GIVE_UP): ImportState.GIVING_UP,
    (ImportState.WAITING, ImportStep.STOP): ImportState.STOPPING,
    (ImportState.GIVING_UP, ImportStep.REPORT): ImportState.PUBLISHING,
    (ImportState.GIVING_UP, ImportStep.STOP): ImportState.STOPPING,
    (ImportState.GIVING_UP, ImportStep.FAIL): ImportState.FAILED,
    (ImportState.PUBLISHING, ImportStep.PUBLISH): ImportState.PUBLISHED,
    (ImportState.PUBLISHING, ImportStep.FAIL): ImportState.FAILED,
    (ImportState.STOPPING, ImportStep.DESTROY): ImportState.STOPPED,
}

# Intake is given every row that is not ended and does not wait; its own database says how far it had come.
# A row that says more than intake still knows (its disk was lost) is told as begun, and intake ends it as failed.
AFTER_RESTART: Mapping[ImportState, ImportState] = {state: state for state in ImportState}


class StudyState(StrEnum):
    TAKEN_IN = "taken_in"  # its originals are sealed in quarantine
    WAITING = "waiting"  # a file of it met a defect of ours
    DEIDENTIFIED = "deidentified"  # its files stand in intake's staging folder, what they lost is sealed
    SEARCHED = "searched"  # for what the patient's other studies lost
    HANDED_OVER = "handed_over"  # core has it on its own disk, on record
    FORGOTTEN = "forgotten"  # no original of it is left, nothing sealed, nothing staged


class StudyStep(StrEnum):
    DEIDENTIFY = "deidentify"
    WAIT = "wait"
    RETRY = "retry"
    SEARCH = "search"
    HAND_OVER = "hand_over"
    FORGET = "forget"  # of a study of which nothing passed, or that was given up, core is told numbers alone


STUDY_TRANSITIONS: Mapping[tuple[StudyState, StudyStep], StudyState] = {
    (StudyState.TAKEN_IN, StudyStep.DEIDENTIFY): StudyState.DEIDENTIFIED,
    (StudyState.TAKEN_IN, StudyStep.WAIT): StudyState.WAITING,
    (StudyState.WAITING, StudyStep.RETRY): StudyState.TAKEN_IN,
    (StudyState.WAITING, StudyStep.FORGET): StudyState.FORGOTTEN,
    (StudyState.DEIDENTIFIED, StudyStep.SEARCH): StudyState.SEARCHED,
    (StudyState.DEIDENTIFIED, StudyStep.WAIT): StudyState.WAITING,
    (StudyState.SEARCHED, StudyStep.HAND_OVER): StudyState.HANDED_OVER,
    (StudyState.SEARCHED, StudyStep.FORGET): StudyState.FORGOTTEN,
    (StudyState.HANDED_OVER, StudyStep.FORGET): StudyState.FORGOTTEN,
}


def advance(state: ImportState, step: ImportStep) -> ImportState:
    """The state after `step`. Raises `IntegrityBroken` for a step the table does not have in this state."""
    return transitions.advance(TRANSITIONS, state, step, "an import")


def advance_study(state: StudyState, step: StudyStep) -> StudyState:
    """The same for a study."""
    return transitions.advance(STUDY_TRANSITIONS, state, step, "a study")


def mermaid() -> str:
    """The import's table as a Mermaid state diagram, for the documentation."""
    return transitions.mermaid(TRANSITIONS, ImportState.ORDERED, IMPORT_ENDED)


def study_mermaid() -> str:
    """The study's."""
    return transitions.mermaid(STUDY_TRANSITIONS, StudyState.TAKEN_IN, {StudyState.FORGOTTEN})
