"""One DICOM file through a compiled table: read strictly, rebuilt from what the table lets stay, checked on disk.

The output is built anew, element by element; nothing of the input is edited in place, so what no rule asked for is not
there: preamble, file meta, private groups, group lengths, curves, overlays, padding, whatever follows the pixels.
Pixel data is copied byte for byte in its own transfer syntax (a deflated file becomes explicit VR little endian), but
for what no decoder reads of a compressed stream.

    source = engine.open(handle)                    # or read(content); the handle stays open until it is written
    refused = engine.write(source, subject, path)   # None: it stands, and was searched for what was removed

1. What the strict reader finds contradictory goes to the patient one (`node.deid.lenient`) before it is refused.
2. A new file (0600), never over another and never through a link; gone again whatever goes wrong.
3. It is read again from disk: the header is what was meant, and nothing the patient's files lost is in it, its name,
   or what follows the pixels. A match inside a value that is ours is counted, not refused.
4. What the profile means to keep and cannot is told by keyword, and whether geometry, values or decoding depend on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from mediator.deid.identifiers import Identifier, Lost
from mediator.deid.mandatory import Mandatory
from mediator.deid.needed import Needed
from mediator.deid.pseudonyms import SITE_KEY_BYTES, Pseudonyms
from mediator.deid.rules import ElementAction, ProfileTable
from mediator.deid.screening import Exclusion, Facts
from mediator.deid.statement import statement
from mediator.deid.tables import Standard
from mediator.deid.values import Subject
from node.deid import encoding
from node.deid.by_force import held
from node.deid.chunks import NOTHING, Chunk
from node.deid.copiers import Copiers
from node.deid.date_check import DatesDiffer
from node.deid.element import usual_vr
from node.deid.facts import EXTENDED_LENGTHS, EXTENDED_OFFSETS, TOTAL_LENGTH, facts_of, fitted
from node.deid.inflated import inflated
from node.deid.lenient import parse_leniently
from node.deid.profiles import load_profile, standard
from node.deid.reader import Parsed, Reader
from node.deid.rewrite import Rewriter, TooMuch
from node.deid.searcher import Searcher, kept_words
from node.deid.stream import FileStream, MemoryStream, Stream
from node.deid.structure import DEFLATED_FRAMES, ElementNode, Unreadable
from node.deid.write_output import Conversion, OutputWriter, matches, named

_ISSUER = 0x00100021  # Issuer of Patient ID
_SOP_INSTANCE = 0x00080018
_NO_PLACES = [(tag, NOTHING) for tag in (EXTENDED_OFFSETS, EXTENDED_LENGTHS, TOTAL_LENGTH)]


@dataclass(frozen=True)
class Source:
    """A file that could be taken apart: what the gate needs to know, and the parts."""

    facts: Facts
    finding: Exclusion | None
    parsed: Parsed = field(repr=False)


class ProfileEngine:
    """Implements `node.deid.deidentify.DicomEngine` for one compiled profile."""

    def __init__(self, table: ProfileTable, standard: Standard, copiers: Copiers | None = None) -> None:
        """`copiers`: threads that copy the pixels of what is begun; without them they are copied at once."""
        self.table = table
        self._copiers = copiers
        vr_of = {tag: usual_vr(element.vrs) for tag, element in standard.elements.items()}
        self.vr_of = lambda tag: vr_of.get(tag, "UN")
        self._reader = Reader(self.vr_of, whole_groups=bool(table.private))
        self._mandatory = Mandatory(standard)
        self._needed = Needed(standard)
        self._keywords = {tag: element.keyword for tag, element in standard.elements.items()}
        self._kept = kept_words(table)  # once: a study of a few slices has two searchers
        self._rewriter: Rewriter | None = None
        self._missed: dict[tuple[tuple[tuple[int, str], ...], str], tuple[Mapping[str, int], bool]] = {}
        self._statements: dict[tuple[bool, bool], list[tuple[int, Chunk]]] = {}

    def open(self, handle: int) -> Source | Exclusion:
        """The regular file behind a descriptor taken apart, or why it cannot be. Only its header is ever in memory."""
        return self.take(FileStream(handle))

    def read(self, content: bytes) -> Source | Exclusion:
        """A file's bytes taken apart, or why they cannot be."""
        return self.take(MemoryStream(content))

    def take(self, stream: Stream) -> Source | Exclusion:
        """The same of whatever can be read in pieces, until `write`."""
        try:
            try:
                parsed = self._reader.parse(stream)
            except Unreadable as problem:
                if problem.finding is not Exclusion.MALFORMED:
                    raise
                parsed = parse_leniently(stream, self.vr_of)  # (1)
            parsed = held(parsed)
        except Unreadable as problem:
            return problem.finding
        except MemoryError:
            return Exclusion.TOO_LARGE
        if parsed.finding is not None:
            return Source(facts_of(parsed), parsed.finding, parsed)
        if parsed.syntax == DEFLATED_FRAMES:
            try:
                parsed = inflated(parsed)
            except Unreadable as problem:
                return Source(facts_of(parsed), problem.finding, parsed)
        fit = fitted(parsed)
        finding = None if fit is not None else Exclusion.PIXELS_INCONSISTENT
        return Source(facts_of(parsed), finding, fit or parsed)

    def write(self, source: Source, subject: Subject, path: Path) -> Exclusion | None:
        """De-identify into a new file (0600); None when it stands and was checked, else why it does not stand."""
        return self.convert(source, subject, path).exclusion

    def convert(self, source: Source, subject: Subject, path: Path, *, hash_pixels: bool = False) -> Conversion:
        """`write`, and what was seen on the way. Raises `FileExistsError` where the path is taken."""
        return self.begin(source, subject, path, hash_pixels=hash_pixels)()

    def begin(
        self, source: Source, subject: Subject, path: Path, *, hash_pixels: bool = False
    ) -> Callable[[], Conversion]:
        """`convert` under way: call what comes back, in the order of beginning, before the source is closed."""
        parsed = source.parsed
        if source.finding is not None:
            return partial(Conversion, source.finding)
        rewriter = self.rewriter_of(subject)
        chunks = self._header(source, rewriter)
        if isinstance(chunks, Exclusion):
            return partial(Conversion, chunks)
        finish = OutputWriter(  # (2) (3)
            path,
            parsed,
            chunks,
            encoding.pixel_frame(parsed, parsed.pixels)[1] if parsed.pixels is not None else b"",
            rewriter,
            own=rewriter.uid(source.facts.sop_instance),
            hash_pixels=hash_pixels,
            copiers=self._copiers,
        ).finish
        missed = rewriter.missed(chunks)
        return partial(self._with_missed, finish, missed, source.facts.modality) if missed else finish

    def _with_missed(
        self, finish: Callable[[], Conversion], missed: tuple[tuple[int, str], ...], modality: str
    ) -> Conversion:
        """What came of an instance of which something is not kept that was to be. (4)"""
        if (told := self._missed.get((missed, modality))) is None:
            names = {self._name(*one): count for one, count in Counter(missed).items()}
            told = names, any(self._needed.is_needed(tag, modality) for tag, _creator in missed)
            self._missed = {(missed, modality): told}  # that of the slice before
        return replace(finish(), missed=told[0], unreadable=told[1])

    def _name(self, tag: int, creator: str) -> str:
        """A keyword of PS3.6; of a private element its creator, who is on the safe list, and its place."""
        return self._keywords.get(tag) or f"{creator} ({tag >> 16:04X},xx{tag & 0xFF:02X})"

    def search(self, source: Source, subject: Subject, path: Path) -> Exclusion | None:
        """Why what was made of this file must not stand by all that is lost until now; None: what it holds is chance.

        Nothing is written. `path`: what was made of it, before all was known.
        """
        if source.finding is not None:
            return source.finding
        rewriter = self.rewriter_of(subject)
        chunks = self._header(source, rewriter)
        if isinstance(chunks, Exclusion):
            return chunks
        header = b"".join([chunk.raw for chunk in chunks])
        found = matches(header, [*chunks, named(rewriter.uid(source.facts.sop_instance))], rewriter)
        searcher = self.searcher()
        searcher.lost(rewriter.own.identifiers)
        return Exclusion.RESIDUAL_IDENTIFIER if found is None or searcher.finds(path) else None

    def _header(self, source: Source, rewriter: Rewriter) -> list[Chunk] | Exclusion:
        """All that is written before the pixel value, or why nothing is."""
        parsed = source.parsed
        meta = self._meta(source, rewriter)
        before = encoding.pixel_frame(parsed, parsed.pixels)[0] if parsed.pixels is not None else b""
        try:
            header = rewriter.header(parsed, self._ours(parsed, rewriter.subject))
        except DatesDiffer:
            return Exclusion.DATES_DIFFER
        except TooMuch:
            return Exclusion.TOO_LARGE
        return [Chunk(meta, (meta,)), *header, Chunk(before)]

    def searcher(self) -> Searcher:
        """For finished files, once what the files after them lost is known."""
        return Searcher(self.table, self._mandatory, self.vr_of, self._kept)

    def named(self, source: Source, *, whole: bool = False) -> list[Identifier]:
        """The names and numbers a file holds, those in its largest sequences only if `whole`; identifying."""
        nobody = Subject(Pseudonyms(bytes(SITE_KEY_BYTES), "named"), "-", 1)  # nothing of these is written
        rewriter = Rewriter(self.table, self._mandatory, nobody)
        rewriter.meet(source.parsed, whole=whole)
        return rewriter.take_named()

    def lost(self, subject: Subject) -> list[Lost]:
        """What this patient's files lost since this was last asked; identifying."""
        rewriter = self.rewriter_of(subject)
        return [*rewriter.residue.take(), *rewriter.take_named()]

    def remember(self, subject: Subject, values: Iterable[Lost]) -> None:
        """Search this patient's next files for these values, too; they are not news to `lost`. Raises `TooMuch`."""
        rewriter, several = self.rewriter_of(subject), list(values)
        rewriter.learn(value for value in several if isinstance(value, Identifier))
        rewriter.residue.lost(value for value in several if isinstance(value, bytes))
        rewriter.residue.take()

    def rewriter_of(self, subject: Subject) -> Rewriter:
        """The one that writes this patient's files, with what they lost so far."""
        if self._rewriter is None or self._rewriter.subject is not subject:
            self._rewriter = Rewriter(self.table, self._mandatory, subject)
        return self._rewriter

    def _meta(self, source: Source, rewriter: Rewriter) -> bytes:
        facts = source.facts
        known = self.table.class_uids
        sop_class = facts.sop_class if facts.sop_class in known else rewriter.uid(facts.sop_class)
        stays = self.table.rule(_SOP_INSTANCE).action is ElementAction.KEEP  # PS3.10 7.1: equal to the dataset's
        sop_instance = facts.sop_instance if stays else rewriter.uid(facts.sop_instance)
        return encoding.file_meta(source.parsed.syntax, sop_class, sop_instance)

    def _ours(self, parsed: Parsed, subject: Subject) -> list[tuple[int, Chunk]]:
        """What is written whatever the file says. Places in a stream are told by its own offset table alone."""
        return [*self._statement(parsed, subject), *_NO_PLACES]

    def _statement(self, parsed: Parsed, subject: Subject) -> list[tuple[int, Chunk]]:
        """(0012,0062) to (0012,0064) and (0028,0303): what was done, in the standard's own codes (PS3.15 E.1.1).

        Where the profile says that the site issued the pseudonym, its issuer stands there whatever the input had.
        """
        form = (parsed.implicit, parsed.little)
        if form not in self._statements:
            said = statement(self.table)
            codes = tuple(
                (_text(0x00080100, "SH", code), _text(0x00080102, "SH", "DCM"), _text(0x00080104, "LO", meaning))
                for code, meaning in said.codes
            )
            issued = self.table.rule(_ISSUER).action is ElementAction.SITE
            nodes = [
                *([_text(_ISSUER, "LO", subject.site)] if issued else []),
                _text(0x00120062, "CS", said.removed),
                _text(0x00120063, "LO", said.method),
                ElementNode(0x00120064, "SQ", items=codes),
                _text(0x00280303, "CS", said.temporal),
            ]
            raw = [encoding.dataset((node,), implicit=form[0], little=form[1]) for node in nodes]
            self._statements[form] = [(node.tag, Chunk(one, (one,))) for node, one in zip(nodes, raw, strict=True)]
        return self._statements[form]


def open_engine(profile: str, copiers: Copiers | None = None) -> ProfileEngine:
    """The engine for a profile that comes with the package. Raises `UsageFault` for a name that is none."""
    return ProfileEngine(load_profile(profile), standard(), copiers)


def _text(tag: int, vr: str, text: str) -> ElementNode:
    return ElementNode(tag, vr, encoding.text_value(vr, [text[:64]]))
