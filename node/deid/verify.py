"""The residual check alone, on any tool's output: what the originals held and the profile removes must be gone.

1. From SRC: every value the profile removes or replaces, and its words, as the engine itself would search for them.
2. In DST: preamble and file meta, every element at any depth, what follows the pixels, the file's name. Short numbers
   count only as whole words (a UID of 39 digits holds any four of them by chance).
3. An element whose value the profile would keep as it stands for this patient, or that only says what was done, is no
   finding and is counted. The patient's own names and numbers, two letters or more, convict in any text that is not as
   a whole a term of the standard's for its attribute. Whose an output is, its pixels say, its UIDs, or others under the
   same PatientID; where nothing does and SRC is of several patients, a listed word is a term. Words that name nobody
   (`anonymous`) and UIDs of the standard are not searched for.
4. Dates and times are not searched for (a moved date may be another's original) but compared, element by element at
   every depth, with the original a file was made of: none stands that the profile moves, cuts or removes; where it
   moves them, all of a patient's by the same days; where it cuts them, to their month. The pixels say which original
   that is; with the key of our own output so do the UIDs, and the days are the patient's own.
5. A key under which no output's UID is an original's made none of them: that is told, and pixels say what they can.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from mediator.deid.identifiers import NOBODYS, Own
from mediator.deid.mandatory import Mandatory
from mediator.deid.pseudonyms import SITE_KEY_BYTES, Pseudonyms
from mediator.deid.rules import DEFAULT_RULE, TEMPORAL, ElementAction, ProfileTable, Rule
from mediator.deid.screening import Exclusion
from mediator.deid.statement import BASIC, OPTION_CODES
from mediator.deid.tables import tag_text
from mediator.deid.values import Subject, decide
from node.deid.date_check import DATE_VRS, Moved, date_holds, moved_days, study_date, text
from node.deid.engine import ProfileEngine, Source
from node.deid.facts import TEXT_VRS, cells_of, decode, layout_of
from node.deid.issuers import Issuers
from node.deid.numerals import numerals
from node.deid.ordinals import is_standing_in, without_ordinal
from node.deid.pixels.fragments import new_frames
from node.deid.pixels.layout import MalformedStream
from node.deid.pixels.native import masked_blocks
from node.deid.profiles import standard
from node.deid.residue import Residue
from node.deid.rewrite import Rewriter, block_of, coded_in
from node.deid.searcher import WORDS, is_reservation, still_names
from node.deid.structure import ElementNode

_CHARSET = 0x00080005
_STEP = 1 << 20
# What no reader of ours takes apart is searched whole, up to this; pixel data of such a file is searched too.
_WHOLE_BYTES = 1 << 28
_SHORT_NUMBER = re.compile(rb"[0-9a-f.+-]{1,8}")
# what stands in place of a name, in originals that were de-identified before and in our own output
_NOBODY = re.compile(rb"(?i)anonymous|anonymi[sz]ed|removed|unknown")
# the words of (0012,0062) to (0012,0064) and (0028,0303), whoever wrote them
_STATED = re.compile(r"\((0012,006[234]|0028,0303)\)")
_METHOD = re.compile(r"Cloister [a-zA-Z0-9-]+/\d+ engine \d+ [0-9a-f]{12}")
_VOCABULARY = frozenset(
    {text for entry in (BASIC, *OPTION_CODES.values()) for text in entry}
    | set(TEMPORAL.values())
    | {"DCM", "YES", "NO"}
)
_CHARSET_NAME = re.compile(r"(ISO_IR \d{1,3}|ISO 2022 IR \d{1,3}|GB18030|GBK)?")
_WORD = re.compile(rb"[A-Za-z0-9.]")


Patient = tuple[str, str]
"""PatientID and its issuer."""


class WalkedFile(Protocol):
    """A file below a folder, as `node.deid.source_folder.walk` yields it."""

    @property
    def path(self) -> str: ...

    @property
    def handle(self) -> int | None: ...


Walk = Callable[[str], Iterator[Any]]


@dataclass(frozen=True)
class VerifyFinding:
    """Something of an original in an output: where, never what."""

    output: str  # dst#0007
    where: str
    kind: str  # value; date: one of the original; interval: a date that does not fit the patient's others


@dataclass
class Verification:
    """What `verify_folders` saw."""

    originals: int = 0
    unreadable_originals: int = 0
    outputs: int = 0
    matched: int = 0  # outputs of which the original is known
    made_with_key: bool | None = None  # whether any output's UID is an original's, keyed or as it was; None: no key
    pardoned: int = 0
    findings: list[VerifyFinding] = field(default_factory=list)

    @property
    def damaged(self) -> int:
        """How many files hold something."""
        return len({finding.output for finding in self.findings})

    def plain(self) -> dict[str, Any]:
        """For `--json`: findings by file, and counts by place."""
        return {
            "originals": self.originals,
            "unreadable_originals": self.unreadable_originals,
            "outputs": self.outputs,
            "outputs_matched": self.matched,
            "made_with_key": self.made_with_key,
            "kept_on_purpose": self.pardoned,
            "outputs_with_findings": self.damaged,
            "findings_by_place": dict(Counter(f"{one.kind} {one.where}" for one in self.findings).most_common()),
            "findings": [f"{one.output} {one.kind} {one.where}" for one in self.findings],
        }


@dataclass(frozen=True)
class _Leaf:
    """One element that is no sequence, wherever it stands, with the rule that holds there."""

    place: str
    node: ElementNode
    rule: Rule
    charset: bytes
    path: tuple[int, ...] = ()  # tags and numbers of items
    coded: bool = False  # part of a code of the standard

    @property
    def is_date(self) -> bool:
        """By its own VR, or by the rule's where a writer put it into one of text or did not say."""
        vr, vrs = self.node.vr, self.rule.vrs
        return vr in DATE_VRS or (bool(vrs) and DATE_VRS.issuperset(vrs) and (vr == "UN" or vr in TEXT_VRS))


@dataclass(frozen=True)
class _Original:
    """Whose an original is, and its dates by path."""

    patient: Patient
    dates: Mapping[tuple[int, ...], str] = field(repr=False)
    study: str = ""


def verify_folders(
    source: str, output: str, table: ProfileTable, walk: Walk, keyed: Pseudonyms | None = None
) -> Verification:
    """Search every file below `output` for what those below `source` held. Raises `UsageFault` for no folders.

    `keyed`: what our own output was made with.
    """
    report = _Verifier(table, keyed).run(source, output, walk)
    if keyed is None or report.matched:
        report.made_with_key = None if keyed is None else True
        return report
    report = _Verifier(table, None).run(source, output, walk)  # (5)
    report.made_with_key = False
    return report


class _Verifier:
    def __init__(self, table: ProfileTable, keyed: Pseudonyms | None) -> None:
        self._table = table
        self._keyed = keyed
        self._engine = ProfileEngine(table, standard())
        # no value of these is written anywhere: only what would be lost is asked for
        self._subject = Subject(Pseudonyms(bytes(SITE_KEY_BYTES), "verify"), "-", 1)
        self._mandatory = Mandatory(standard())
        self._residue = Residue()
        self._rewriter = Rewriter(table, self._mandatory, self._subject)
        self._owner: Patient | None = None
        self._own: dict[Patient, Own] = {}
        self._together: dict[frozenset[Patient], Own] = {}
        self._called: dict[str, set[Patient]] = {}  # whose outputs have this PatientID
        self._by_pixels: dict[bytes, list[_Original]] = {}
        self._by_uid: dict[str, list[_Original]] = {}
        self._days: dict[Patient, int] = {}  # how far the first date of each patient was moved
        self._issuers = Issuers()
        self._report = Verification()

    def run(self, source: str, output: str, walk: Walk) -> Verification:
        for entry in walk(source):
            self._each(entry, self._learn)
        self._adopt_issuers()
        for entry in walk(output):
            self._each(entry, self._recognise)
        for number, entry in enumerate(walk(output), start=1):
            self._report.outputs += 1
            label = f"dst#{number:04d}"
            self._each(entry, partial(self._check, label=label, path=entry.path))
        return self._report

    @staticmethod
    def _each(entry: WalkedFile, work: Callable[[int], None]) -> None:
        if entry.handle is None:
            return
        try:
            work(entry.handle)
        finally:
            os.close(entry.handle)

    def _learn(self, handle: int) -> None:
        """What an original holds that must go. (1)"""
        self._report.originals += 1
        source = self._engine.open(handle)
        if isinstance(source, Exclusion):
            self._report.unreadable_originals += 1
            return
        facts = source.facts
        self._lose(source, (facts.patient_id, facts.issuer))
        dates = {leaf.path: text(leaf.node) for leaf in self._leaves(source) if leaf.is_date}
        original = _Original((facts.patient_id, facts.issuer), dates, facts.study)
        if facts.issuer:
            self._issuers.add(facts.study, facts.patient_id, facts.issuer)
        if self._keyed is not None:
            for uid in (self._keyed.uid(facts.sop_instance), facts.sop_instance):
                self._by_uid.setdefault(uid, []).append(original)
        elif (digest := _pixel_digest(source)) is not None:
            self._by_pixels.setdefault(digest, []).append(original)

    def _adopt_issuers(self) -> None:
        """Within a study an issuer that is not said is the study's, as for gate 0."""
        for originals in (*self._by_pixels.values(), *self._by_uid.values()) if self._issuers else ():
            for place, one in enumerate(originals):
                number, said = one.patient
                issuer = said or self._issuers.of(one.study, number)
                if issuer != said:
                    originals[place] = replace(one, patient=(number, issuer))
                    both = [self._own.get(patient, NOBODYS).identifiers for patient in (one.patient, (number, issuer))]
                    self._own[number, issuer] = Own(each for several in both for each in several)

    def _lose(self, source: Source, patient: Patient) -> None:
        """What one patient's files lose is searched for in all outputs; what they name is no term in this patient's."""
        if patient != self._owner:
            self._owner, self._rewriter = patient, Rewriter(self._table, self._mandatory, self._subject)
            self._rewriter.residue, self._rewriter.most_lost = self._residue, math.inf  # of a whole folder
            self._rewriter.learn(self._own.get(patient, NOBODYS).identifiers)
        self._rewriter.header(source.parsed, ())
        self._own[patient] = self._rewriter.own

    def _recognise(self, handle: int) -> None:
        """Whose all outputs under one PatientID may be: who each of them that has a known original may be of."""
        source = self._engine.open(handle)
        if isinstance(source, Source) and (originals := self._originals(source)):
            found = {one.patient for one in originals}
            self._called[source.facts.patient_id] = self._called.get(source.facts.patient_id, found) & found

    def _originals(self, source: Source) -> list[_Original]:
        if self._keyed is not None:
            return self._by_uid.get(source.facts.sop_instance, [])
        return self._by_pixels.get(_pixel_digest(source) or b"", [])

    def _own_of(self, source: Source) -> Own:
        """The names and numbers of whom an output is of. Equal pixels may be of several: then of all of them."""
        found = {one.patient for one in self._originals(source)}
        called = self._called.get(source.facts.patient_id, set())
        patients = frozenset((found & called) or found or called or (self._own if len(self._own) == 1 else ()))
        if (own := self._together.get(patients)) is None:
            own = Own(one for patient in patients if patient in self._own for one in self._own[patient].identifiers)
            self._together[patients] = own
        return own

    def _check(self, handle: int, label: str, path: str) -> None:
        """One output. (2)"""
        if self._hits(path.encode("utf-8", "surrogateescape")):
            self._find(label, "file name")
        source = self._engine.open(handle)
        if isinstance(source, Exclusion):
            if self._hits(os.pread(handle, _WHOLE_BYTES, 0)):
                self._find(label, "file that cannot be taken apart")
            return
        if self._hits(_before_dataset(handle)):
            self._find(label, "preamble or file meta")
        self._check_texts(source, label)
        pixels = source.parsed.pixels
        if pixels is not None and self._hits(source.parsed.stream.read(pixels.end, _WHOLE_BYTES)):
            self._find(label, "after the pixels")
        self._compare_dates(source, label)

    def _check_texts(self, source: Source, label: str) -> None:
        """(3)"""
        own = self._own_of(source)
        subject = replace(self._subject, own=own)
        for leaf in self._leaves(source):
            if leaf.node.vr in DATE_VRS:
                continue
            hit = self._hits(leaf.node.value)
            if (hit and not self._stays(leaf, subject)) or self._names(leaf, own):
                self._find(label, leaf.place)
            else:
                self._report.pardoned += hit

    def _names(self, leaf: _Leaf, own: Own) -> bool:
        """Whether a text is somebody's who is called so, however short, however it is spelled."""
        if leaf.coded or not own:
            return False
        if leaf.node.vr not in WORDS:
            return any(map(own.is_number, numerals(leaf.node)))
        values = decode(_NOBODY.sub(b" ", leaf.node.value), leaf.node.vr, leaf.charset)
        if is_reservation(self._table, leaf.node.tag, values[0]):
            return False
        return still_names(leaf.rule, leaf.node.tag, values, own.name, self._mandatory)

    def _compare_dates(self, source: Source, label: str) -> None:
        """(4) Equal pixels, or one UID given twice, may be of several originals: then one that fits is enough."""
        originals = self._originals(source)
        if not originals:
            return
        self._report.matched += 1
        leaves = [leaf for leaf in self._leaves(source) if leaf.is_date and text(leaf.node)]
        for where, kind in min((list(self._misplaced(original, leaves)) for original in originals), key=len):
            self._find(label, where, kind)
        if self._keyed is None and len(originals) == 1 and (days := _first_move(originals[0], leaves)):
            self._days.setdefault(originals[0].patient, days)

    def _misplaced(self, original: _Original, leaves: Sequence[_Leaf]) -> Iterator[tuple[str, str]]:
        """(where, kind of finding) for dates that are not what the profile makes of the original's.

        Without the key, the first date of a patient that was moved says how far all of them are.
        """
        keyed, patient = self._keyed, original.patient
        days = keyed.shift_days(*patient) if keyed else self._days.get(patient) or _first_move(original, leaves)
        study = study_date({path[0]: said for path, said in original.dates.items() if len(path) == 1})
        for leaf in leaves:
            rule, before, after = leaf.rule, original.dates.get(leaf.path, ""), text(leaf.node)
            vr = leaf.node.vr if leaf.node.vr in DATE_VRS else rule.vrs[0]
            if before == after and rule.action is ElementAction.SHIFT_DATE:
                yield leaf.place, "date"
            elif date_holds(rule, vr, before, after, Moved(days, study)):
                continue
            elif before == after:
                yield leaf.place, "date"
            elif keyed or (before and rule.action in (ElementAction.SHIFT_DATE, ElementAction.TRUNCATE_DATE)):
                yield leaf.place, "interval"

    def _find(self, label: str, where: str, kind: str = "value") -> None:
        self._report.findings.append(VerifyFinding(label, where, kind))

    def _hits(self, raw: bytes) -> bool:
        plain = _NOBODY.sub(b" ", raw)
        known = self._table.class_uids
        return any(
            _is_word(plain, at, token) and token.decode("latin-1") not in known
            for at, token in self._residue.search(plain)
        )

    def _stays(self, leaf: _Leaf, subject: Subject) -> bool:
        """Whether the profile itself would leave this value as it stands."""
        node, rule = leaf.node, leaf.rule
        if node.tag >> 16 & 1 and 0x10 <= node.tag & 0xFFFF <= 0xFF:
            return is_reservation(self._table, node.tag, text(node))
        if node.vr not in TEXT_VRS:
            return rule.action is ElementAction.KEEP
        values = decode(node.value, node.vr, leaf.charset)
        if leaf.node.tag == _CHARSET:
            return all(_CHARSET_NAME.fullmatch(value) for value in values)
        if _STATED.match(leaf.place):
            return all(value in _VOCABULARY or _METHOD.fullmatch(value) for value in values)
        if all(is_standing_in(node.tag, value) for value in values):
            return True
        values = tuple(without_ordinal(node.tag, value) for value in values)
        if rule.action in (ElementAction.REMOVE, ElementAction.PSEUDONYM):
            return False
        subject = self._subject if leaf.coded else subject
        written = decide(rule, node.vr, values, self._table, subject)
        written = self._mandatory.complete(node.tag, rule, values, written)
        return written is not None and " ".join(written.values).split() == " ".join(values).split()

    def _leaves(self, source: Source) -> Iterator[_Leaf]:
        return self._walk(source.parsed.nodes, b"", "", (), gone=False)

    def _walk(
        self, nodes: Sequence[ElementNode], charset: bytes, above: str, path: tuple[int, ...], *, gone: bool
    ) -> Iterator[_Leaf]:
        charset = next((node.value for node in nodes if node.tag == _CHARSET), charset)
        creators: dict[int, str] = {}
        coded = coded_in(nodes, charset, self._table) if path else frozenset()
        for node in nodes:
            private = node.tag >> 16 & 1
            if private and 0x10 <= node.tag & 0xFFFF <= 0xFF and node.items is None:
                creators[block_of(node.tag)] = node.value.decode("latin-1")
            if gone:
                rule = DEFAULT_RULE
            elif private:
                rule = self._table.private_rule(creators.get(node.tag & 0xFFFFFF00, ""), node.tag)
            else:
                rule = self._table.rule(node.tag)
            place = f"{above}{tag_text(node.tag)}"
            if node.items is None:
                yield _Leaf(place, node, rule, charset, (*path, node.tag), node.tag in coded)
                continue
            for number, item in enumerate(node.items):
                inside = (*path, node.tag, number)
                yield from self._walk(
                    item, charset, f"{place} > ", inside, gone=rule.action is not ElementAction.RECURSE
                )


def _is_word(raw: bytes, at: int, token: bytes) -> bool:
    """Whether a match counts: short numbers only where neither neighbour continues them. (2)"""
    if not _SHORT_NUMBER.fullmatch(token):
        return True
    end = at + len(token)
    return not (_WORD.match(raw[at - 1 : at] if at else b"") or _WORD.match(raw[end : end + 1]))


def _first_move(original: _Original, leaves: Sequence[_Leaf]) -> int:
    """By how many days the first date was moved that was; 0: none was."""
    shifted = (leaf for leaf in leaves if leaf.rule.action is ElementAction.SHIFT_DATE)
    moves = (moved_days(original.dates.get(leaf.path, ""), text(leaf.node)) for leaf in shifted)
    return next((days for days in moves if days), 0)


def _pixel_digest(source: Source) -> bytes | None:
    """Equal for an original and what was made of it: without what stays behind of a compressed stream."""
    parsed, pixels = source.parsed, source.parsed.pixels
    if pixels is None or pixels.end <= pixels.start:
        return None
    if pixels.fragments is not None:
        with suppress(MalformedStream):
            return _digest(new_frames(parsed.syntax, parsed.stream, pixels.start, pixels.end, layout_of(parsed)))
    elif (form := cells_of(parsed)) is not None:
        return _digest(after for _, after in masked_blocks(parsed.stream, pixels.start, pixels.end, form))
    places = range(pixels.start, pixels.end, _STEP)
    return _digest(parsed.stream.read(at, min(_STEP, pixels.end - at)) for at in places)


def _digest(parts: Iterable[bytes]) -> bytes:
    machine = hashlib.sha256()
    for part in parts:
        machine.update(part)
    return machine.digest()


def _before_dataset(handle: int) -> bytes:
    """Preamble and file meta, by the length group 2 declares (PS3.10 7.1)."""
    head = os.pread(handle, 1 << 16, 0)
    if len(head) >= 144 and head[132:138] == b"\x02\x00\x00\x00UL":
        return head[: 144 + struct.unpack_from("<L", head, 140)[0]]
    return head[:132]
