"""Gate 2 for files: may the tables of an analysis be shown to the persons who decide whether they leave?

What the rules find is not the release: people do that, and their part is `mediator.airlock.review`. Every file gets a
`DisclosureRecord`, whatever becomes of it. Nothing is suppressed or rounded here: a file is as its job made it, or it
is refused; only columns declared as evidence for the dominance rules are left out, and the record counts them.

The rules are statistical disclosure control's: small cells, dominance (n,k and p %), degrees of freedom, differencing
(SDC Handbook, 2019, chapters 2 to 4; Green, Ritchie, Smith et al., "ACRO", 2023). They are asked of numbers that the
job itself wrote: a job that lies about its counts is bounded by `population`, by the permit's words and digits and by
the size of a file, not stopped. That is why an image is approved by people before and its files by people after.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import ClassVar, Literal

from mediator import canonical
from mediator.airlock import tables
from mediator.airlock.differencing import Group, group_of, revealing
from mediator.airlock.tables import OutputTable
from mediator.analysis import COLUMN, TOTAL, AnalysisRules, FileType
from mediator.disclosure import (
    CountsBefore,
    DisclosureFinding,
    EarlierCounts,
    NearCount,
    Outcome,
    Rule,
    ShownCount,
    releasable,
)
from mediator.errors import Code, Denied, Malformed, Reason
from mediator.grammar import check_unique
from mediator.types import OutputFile

OUTPUTS_FILE = "outputs.json"
# 32 files of a dozen names each
_MAX_OUTPUTS_BYTES = 16_384
_CONTRACT_FILES = frozenset({"DONE", "progress.jsonl", "failure.json"})
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}\.(csv|json)")
_DICOM_UID = re.compile(r"[0-9]+(\.[0-9]+){4,}")
_RUN_OF_LETTERS = re.compile(r"[0-9a-z]+")
# The first characters of a pseudonym: a part of one is as good as the whole, and 12 never meet by chance.
_TELLING = 12
_LABELS = 6
_EXTREMES = frozenset({"min", "max", "minimum", "maximum", "smallest", "largest", "range"})

What = Literal["frequency_table", "magnitude_table", "estimates"]
_CODES: Mapping[Rule, Code] = {
    "plain_text": Code.FILE_NOT_PERMITTED,
    "identifiers": Code.IDENTIFIER_FOUND,
    "threshold": Code.COUNT_BELOW_THRESHOLD,
    "dominance_nk": Code.DOMINANCE,
    "dominance_p": Code.DOMINANCE,
    "differencing": Code.DIFFERENCING,
    "earlier": Code.DIFFERENCING,
}


@dataclass(frozen=True)
class Declared:
    """What `outputs.json` says of one file.

    `labels` are its text columns, `count` the column with the number of patients behind each row. A magnitude table
    also has `value`, a sum, and `largest`: what its largest contributors hold, largest first (read, never released).
    """

    name: str
    type: FileType
    what: What
    labels: tuple[str, ...]
    count: str
    value: str | None
    largest: tuple[str, ...]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or not self.name.endswith(f".{self.type}"):
            raise ValueError("a file's name is lower case, digits and underscores, and ends in its type")
        named = [*self.labels, self.count, *([] if self.value is None else [self.value]), *self.largest]
        check_unique(named, "a column")
        if (self.what == "magnitude_table") != (self.value is not None and bool(self.largest)):
            raise ValueError("a magnitude table names its value and its largest contributors, and nothing else does")
        if len(self.labels) > _LABELS:
            raise ValueError(f"a table has at most {_LABELS} labels")


@dataclass(frozen=True)
class Outputs:
    """`outputs.json`: every file an analysis wants to have released."""

    contract: Literal[1]
    files: tuple[Declared, ...]

    def __post_init__(self) -> None:
        check_unique((file.name for file in self.files), "a file")


@dataclass(frozen=True)
class DisclosureRecord:
    """What was asked of one file, by which rules, and what was found: for people and for programs, without a value.

    `sha256` and `size_bytes` are those of what may leave; empty and 0 for a file that may not. `withheld` counts the
    columns that were read as evidence and are not in it.
    """

    KIND: ClassVar[str] = "cloister.disclosure-record"
    # version 1 had no rule `earlier`
    VERSION: ClassVar[int] = 2

    site: str
    run: str
    dataset_version: str
    name: str
    type: FileType
    what: What
    rows: int
    columns: int
    withheld: int
    size_bytes: int
    sha256: str
    outcome: Outcome
    findings: tuple[DisclosureFinding, ...]
    rules: AnalysisRules


@dataclass(frozen=True)
class AirlockRequest:
    """One analysis's files, as copied once out of the frozen container.

    `rules` are the permit's, narrowed by the hospital's policy; `patients` is how many the job saw; `identifiers` are
    the pseudonyms of its dataset version, of patients and studies; `earlier` what left under the permit before, and
    what waits to leave.
    """

    site: str
    run: str
    dataset_version: str
    rules: AnalysisRules
    patients: int
    identifiers: frozenset[str] = field(repr=False)
    files: Sequence[OutputFile]
    earlier: Sequence[EarlierCounts] = field(repr=False)


@dataclass(frozen=True)
class CheckedFile:
    """A file with its record. `content` is our own encoding of its values, empty for a file that is refused.

    `counts` are all it shows, `near` those that a person has to judge: values, which no record holds.
    """

    record: DisclosureRecord
    content: bytes = field(repr=False)
    code: Code | None
    counts: tuple[ShownCount, ...] = field(repr=False)
    near: tuple[NearCount, ...] = field(repr=False)


def check(request: AirlockRequest) -> tuple[CheckedFile, ...]:
    """Every declared file with its record. Raises `Denied` when the output as a whole is not one.

    1. `outputs.json` declares every file that is there and none that is not; no more than the permit's number.
    2. Together they are within the permit's bytes.
    3. Each file by itself: `_Look`.
    4. All together: no number shown in one file gives away what another does not show (`differencing`).
    5. Each against all that left under the permit before, and against the files before it: `CountsBefore`.
    """
    declared = _declared(request)  # (1)
    contents = {file.name: file.content for file in request.files}
    if sum(len(contents[file.name]) for file in declared) > request.rules.size_bytes:  # (2)
        raise Denied(Reason(Code.BYTES_EXHAUSTED, f"over {request.rules.size_bytes} bytes together"))
    needles = frozenset(name[:_TELLING].lower() for name in request.identifiers if len(name) >= _TELLING)
    looks = [_Look(request, file, contents[file.name], needles) for file in declared]
    for look in looks:  # (3)
        look.at_the_file()
    shown = [(look, look.group) for look in looks if look.group is not None and not look.failed]
    for (look, group), minded in zip(shown, revealing([group for _, group in shown]), strict=True):  # (4)
        look.find("differencing", len(group.shown), minded, "room in every cell that is not shown")
    before = CountsBefore(request.earlier)
    unknown = sum(each.counts is None for each in request.earlier)
    for look in looks:  # (5)
        if not look.failed:
            look.at_what_left(before, unknown)
    return tuple(look.checked() for look in looks)


def _declared(request: AirlockRequest) -> tuple[Declared, ...]:
    names = [file.name for file in request.files]
    raw = next((file.content for file in request.files if file.name == OUTPUTS_FILE), None)
    if raw is None:
        raise Denied(Reason(Code.FILE_MISSING, OUTPUTS_FILE))
    try:
        if len(raw) > _MAX_OUTPUTS_BYTES:
            raise Malformed("too long")
        files = canonical.from_plain(Outputs, canonical.loads_foreign(raw)).files
    except Malformed:  # whose text repeats names, which are the container's
        raise Denied(Reason(Code.FILE_NOT_PERMITTED, f"{OUTPUTS_FILE} is not what the contract says")) from None
    wanted = {file.name for file in files}
    if len(files) > request.rules.files:
        raise Denied(Reason(Code.FILE_NOT_PERMITTED, f"more than {request.rules.files} files"))
    if missing := len(wanted.difference(names)):
        raise Denied(Reason(Code.FILE_MISSING, f"{missing} that {OUTPUTS_FILE} declares"))
    extra = [name for name in names if name not in wanted | _CONTRACT_FILES | {OUTPUTS_FILE}]
    if extra or len(set(names)) != len(names) or not files:  # counted, not named: the name is the container's
        raise Denied(Reason(Code.FILE_NOT_PERMITTED, f"{len(extra)} that {OUTPUTS_FILE} does not declare"))
    return files


class _Look:
    """One file under the rules, in their order; what cannot be read any further is not looked at any further."""

    def __init__(self, request: AirlockRequest, file: Declared, raw: bytes, needles: frozenset[str]) -> None:
        self._request, self._rules, self._file, self._raw = request, request.rules, file, raw
        self._needles = needles
        self._findings: list[DisclosureFinding] = []
        self._table: OutputTable | None = None
        self.group: Group | None = None
        self._shown: tuple[ShownCount, ...] = ()
        self._near: tuple[NearCount, ...] = ()

    @property
    def failed(self) -> bool:
        return any(finding.result == "fail" for finding in self._findings)

    def find(self, rule: Rule, looked_at: int, minded: int, limit: str, *, review: bool = False) -> None:
        result: Outcome = "pass" if not minded else ("review" if review else "fail")
        self._findings.append(DisclosureFinding(rule, result, looked_at, minded, limit))

    def at_the_file(self) -> None:
        """1. plain text of a permitted type; 2. a table within its limits; 3. columns; 4. cells; 5. what it tells."""
        file, rules = self._file, self._rules
        try:  # (1)
            tables.check_plain(self._raw)
        except Denied as denied:
            return self.find("plain_text", 1, 1, denied.reasons[0].detail)
        self.find("plain_text", 1, int(file.type not in rules.types), ", ".join(rules.types) or "no type of file")
        try:  # (2)
            self._table = tables.parse(self._raw, file.type, rows=rules.rows, columns=rules.columns)
        except Denied as denied:
            return self.find("shape", 1, 1, denied.reasons[0].detail)
        self.find("shape", 1, 0, f"{rules.rows} rows, {rules.columns} columns")
        self._identifiers()
        self._columns(self._table)  # (3)
        if not self.failed:
            self._cells(self._table)  # (4)
        if not self.failed:
            self._disclosure(self._table)  # (5)
        return None

    def at_what_left(self, before: CountsBefore, unknown: int) -> None:
        """One group has one number, a contradiction is refused; what is near another count a person has to see."""
        request = self._request
        self._shown = self._counts()
        found = before.compare(self._shown, request.dataset_version, self._rules.threshold)
        self._near = found.pairs
        if found.contradictions:
            return self.find("earlier", found.looked_at, found.contradictions, "one number for one group")
        limit = f"{self._rules.threshold} from every other count under the permit"
        self.find("earlier", found.looked_at, found.near, limit, review=True)
        if unknown:
            self.find("earlier", unknown, unknown, "left before counts were kept, are not known", review=True)
        before.add(EarlierCounts(self._file.name, request.run, request.dataset_version, None, False, self._shown))
        return None

    def _counts(self) -> tuple[ShownCount, ...]:
        """What stands in the table, and what can be added up from it."""
        group, column = self.group, self._file.count
        if group is None:
            return ()
        shown = [ShownCount(column, tuple(sorted(key)), number) for key, number in group.shown.items()]
        for key, number in group.sums().items():
            over = tuple(sorted(set(group.labels).difference(label for label, _ in key)))
            shown.append(ShownCount(column, tuple(sorted(key)), number, over))
        return tuple(shown)

    def checked(self) -> CheckedFile:
        table, file = self._table, self._file
        failing = [finding.rule for finding in self._findings if finding.result == "fail"]
        content = b""
        if table is not None and not failing:
            content = tables.encode(table.without(file.largest), file.type, file.labels)
        outcome: Outcome = "fail" if failing else "pass"
        if not failing and any(finding.result == "review" for finding in self._findings):
            outcome = "review"
        record = DisclosureRecord(
            site=self._request.site,
            run=self._request.run,
            dataset_version=self._request.dataset_version,
            name=file.name,
            type=file.type,
            what=file.what,
            rows=0 if table is None else len(table.rows),
            columns=0 if table is None else len(table.columns),
            withheld=len(file.largest),
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest() if content else "",
            outcome=outcome,
            findings=tuple(self._findings),
            rules=self._rules,
        )
        code = _CODES.get(failing[0], Code.TABLE_NOT_PERMITTED) if failing else None
        return CheckedFile(record, content, code, () if failing else self._shown, self._near)

    def _identifiers(self) -> None:
        """Pseudonyms, whole or their first characters, and anything of a DICOM UID's form, in names and in cells."""
        text = f"{self._file.name}\n{self._raw.decode('ascii')}".lower()
        found = len(_DICOM_UID.findall(text))
        for match in _RUN_OF_LETTERS.finditer(text):
            run = match.group()
            found += sum(run[at : at + _TELLING] in self._needles for at in range(len(run) - _TELLING + 1))
        self.find("identifiers", len(self._needles), found, "no pseudonym, no UID")

    def _columns(self, table: OutputTable) -> None:
        """The columns are those declared; only estimates may have more, which are numbers."""
        file = self._file
        named = {*file.labels, file.count, *file.largest, *([] if file.value is None else [file.value])}
        have = set(table.columns)
        wrong = len(named - have) + (len(have - named) if file.what != "estimates" else 0)
        wrong += sum(not COLUMN.fullmatch(name) for name in have)
        self.find("columns", len(have), wrong, "as declared, short, in lower case")
        extremes = [name for name in have - set(file.largest) if _EXTREMES.intersection(name.split("_"))]
        self.find("extremes", len(have), len(extremes), "no smallest and no largest value")

    def _cells(self, table: OutputTable) -> None:
        """Labels hold the permit's words and nothing else; every other cell is a number of few digits."""
        file, rules = self._file, self._rules
        formulas = sum(tables.is_formula(cell) for row in table.rows for cell in row)
        self.find("formulas", len(table.rows) * len(table.columns), formulas, "nothing a spreadsheet would run")
        strange = 0
        for label in file.labels:
            words = rules.words_of(label) | {TOTAL}
            strange += sum(cell not in words for cell in table.column(label)) if len(words) > 1 else len(table.rows)
        keys = list(zip(*(table.column(label) for label in file.labels), strict=True)) or [()] * len(table.rows)
        strange += len(keys) - len(set(keys))
        self.find("labels", len(keys) * len(file.labels), strange, "the permit's words, each group once")
        wrong = 0
        for name in table.columns:
            if name == file.count:
                hidden = file.what == "frequency_table"
                wrong += sum(tables.count(cell) is None and not (hidden and not cell) for cell in table.column(name))
            elif name not in file.labels:
                digits = 15 if name in file.largest else rules.digits
                wrong += sum(tables.number(cell, digits) is None for cell in table.column(name))
        self.find("numbers", len(table.rows) * len(table.columns), wrong, f"{rules.digits} significant digits")

    def _disclosure(self, table: OutputTable) -> None:
        file, rules = self._file, self._rules
        counts = [tables.count(cell) for cell in table.column(file.count)]
        small = sum(number is not None and not releasable(number, rules.threshold) for number in counts)
        self.find("threshold", len(counts), small, f"{rules.threshold} patients")
        labels = [table.column(label) for label in file.labels]
        keys = list(zip(*labels, strict=True)) if labels else [()] * len(counts)
        self.group = group_of(file.labels, [rules.words_of(label) for label in file.labels], keys, counts)
        contradictions = self.group.contradictions(self._request.patients)
        self.find("population", len(counts), contradictions, f"{self._request.patients} patients, sums that add up")
        if file.what == "magnitude_table":
            self._dominance(table)
        if file.what == "estimates":
            self._freedom(table, [number or 0 for number in counts])

    def _dominance(self, table: OutputTable) -> None:
        """Sums that a few contributors make up. n,k: the n largest hold less than k %. p %: without the two largest
        there remains at least p % of the largest. Negative numbers and a sum of nothing have no dominance, and are
        minded. (`acro` 1.0.2 finds the same on 4,000 random cells.)"""
        file, rules = self._file, self._rules
        sums = [Decimal(cell) for cell in table.column(file.value or "")]
        top = [[Decimal(cell) for cell in row] for row in zip(*map(table.column, file.largest), strict=True)]
        needed = max(2, rules.dominance_n)
        k, p = Decimal(str(rules.dominance_k)) / 100, Decimal(str(rules.p_percent)) / 100

        def minded(breaks: Callable[[Decimal, list[Decimal]], bool]) -> int:
            return sum(
                len(held) < needed or held[-1] < 0 or held != sorted(held, reverse=True) or total <= 0
                or sum(held) > total or breaks(total, held)
                for total, held in zip(sums, top, strict=True)
            )  # fmt: skip

        n = rules.dominance_n
        self.find(
            "dominance_nk", len(sums), minded(lambda total, held: sum(held[:n]) >= k * total),
            f"the {n} largest under {rules.dominance_k:g} %",
        )  # fmt: skip
        self.find(
            "dominance_p", len(sums), minded(lambda total, held: total - held[0] - held[1] < p * held[0]),
            f"the rest at least {rules.p_percent:g} % of the largest",
        )  # fmt: skip

    def _freedom(self, table: OutputTable, counts: Sequence[int]) -> None:
        """Residual degrees of freedom: patients less the numbers estimated from them, as ACRO has it for models. What
        an estimate is, no rule can tell: a person looks at each."""
        numbers = len(table.columns) - len(self._file.labels) - 1
        few = sum(number - numbers < self._rules.threshold for number in counts)
        self.find("freedom", len(counts), few, f"{self._rules.threshold} more patients than estimates")
        if not few:
            self.find("freedom", numbers * len(counts), numbers * len(counts), "a person's judgement", review=True)
