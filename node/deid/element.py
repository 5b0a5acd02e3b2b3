"""One element by its rule: what is written for it, whether that is beyond doubt, and whether anything was lost unasked.

1. Numbers and words are asked of `mediator.deid.values`, the ones it refuses of `mediator.deid.numbers`: written as LO,
   with a comma or as bytes of no kind they stay the numbers they are.
2. A text in another text VR than the standard's is treated as what the standard says it is, and must be it.
3. What a rule means to keep and nothing is left of is *missed*: it is told by name, never dropped without a word.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mediator.deid.mandatory import DUMMY, Mandatory
from mediator.deid.numbers import NUMBER_VRS, as_standard
from mediator.deid.rules import ElementAction, ProfileTable, Rule
from mediator.deid.values import SHAPED, Subject, decide
from node.deid import encoding
from node.deid.facts import TEXT_VRS, UNSPLIT_VRS, decode
from node.deid.numerals import NUMBER_BYTES
from node.deid.structure import ElementNode

# what an action means to leave something of
_RETAINING = frozenset({
    ElementAction.KEEP, ElementAction.CLEAN, ElementAction.SHIFT_DATE, ElementAction.TRUNCATE_DATE,
    ElementAction.KEEP_ZONE, ElementAction.CAP_AGE, ElementAction.RECURSE,
})  # fmt: skip
_DATE_VRS = frozenset({"DA", "TM", "DT"})


@dataclass(frozen=True, slots=True)
class Made:
    """What is written for an element (None: nothing).

    `trusted`: beyond doubt, as bytes of a binary number never are. `read`: the same number or date in the standard's
    own VR, of which nothing is lost.
    `missed`: a value that the rule means to keep, and of which nothing is left. (3)
    """

    node: ElementNode | None
    trusted: bool = True
    read: bool = False
    missed: bool = False


def make(
    rule: Rule,
    node: ElementNode,
    charset: bytes,
    table: ProfileTable,
    mandatory: Mandatory,
    subject: Subject,
    little: bool = True,
    signed: bool = False,
) -> Made:
    """One element that is no sequence. `little`: the byte order of the file; `signed`: its pixels are, and with them
    what the standard has as "US or SS"."""
    if signed and rule.vrs[:2] == ("US", "SS"):
        rule = replace(rule, vrs=("SS", "US", *rule.vrs[2:]))
    vr = _meant_vr(rule, node.vr)
    made = _text(rule, node, vr, charset, table, mandatory, subject) if vr in TEXT_VRS else _bytes(rule, node, vr)
    if not has_value(node) or rule.action not in _RETAINING:
        return made
    if made.node is None or not has_value(made.node):
        if rule.action is ElementAction.KEEP:
            said = "UN" if _is_private(node) and node.vr in rule.vrs else node.vr
            found = as_standard(rule.vrs, rule.vm_max, said, node.value, little=little)
            if found is not None:
                # a word in binary is a number by chance only while it is short: `node.deid.write_output`
                return Made(ElementNode(node.tag, *found), trusted=found[0] in TEXT_VRS, read=True)
        return Made(made.node, made.trusted, missed=True)
    if rule.action is ElementAction.CLEAN and _is_stand_in(made.node.value, node.value):
        return Made(made.node, made.trusted, missed=True)
    return made if vr not in _DATE_VRS else Made(made.node, made.trusted, read=node.vr not in _DATE_VRS)


def _meant_vr(rule: Rule, vr: str) -> str:
    """The VR a value is judged by."""
    if not rule.vrs or vr in rule.vrs:
        return vr
    usual = usual_vr(rule.vrs)
    if vr == "UN":
        return usual  # the standard knows better than the writer who did not; it must still fit
    shaped = rule.action is not ElementAction.KEEP or usual in SHAPED
    if vr in TEXT_VRS and usual in TEXT_VRS and usual not in NUMBER_VRS and shaped:
        return usual  # (2)
    return vr


def _text(
    rule: Rule, node: ElementNode, vr: str, charset: bytes, table: ProfileTable, mandatory: Mandatory, subject: Subject
) -> Made:
    values = decode(node.value, vr if node.vr == "UN" else node.vr, charset)
    if node.vr in UNSPLIT_VRS and vr not in UNSPLIT_VRS:
        values = tuple(values[0].split("\\"))
    written = mandatory.complete(node.tag, rule, values, decide(rule, vr, values, table, subject))
    if written is None:
        return Made(None)
    own = vr if vr in rule.vrs or not rule.vrs else rule.vrs[0]
    return Made(ElementNode(node.tag, own, encoding.text_value(own, written.values)), written.trusted)


def _bytes(rule: Rule, node: ElementNode, vr: str) -> Made:
    if vr in ("US", "SS") and "OW" in rule.vrs and vr not in rule.vrs:
        vr = "OW"  # colour tables of older writers: the same 16-bit numbers
    size = NUMBER_BYTES.get(vr)
    unsure = node.vr == "UN" or _is_private(node)  # must be a number that could be measured
    if rule.action is not ElementAction.KEEP or size is None or vr not in rule.vrs or unsure:
        return Made(None if rule.action is not ElementAction.EMPTY else ElementNode(node.tag, rule.vrs[0]))
    count, rest = divmod(len(node.value), size)
    too_many = rule.vm_max is not None and count > rule.vm_max and not vr.startswith("O")
    return Made(ElementNode(node.tag, vr, b"" if rest or too_many else node.value), trusted=False)


def _is_private(node: ElementNode) -> bool:
    return node.tag >> 16 & 1 == 1


def has_value(node: ElementNode) -> bool:
    """Whether an element says anything: blanks do not, zeros of a number do."""
    return bool(node.value.strip(b" \0") if node.vr in TEXT_VRS else node.value)


def is_meant_to_stay(rule: Rule) -> bool:
    """Whether something of an element is to be left."""
    return rule.action in _RETAINING


def _is_stand_in(after: bytes, before: bytes) -> bool:
    """Whether a word of ours stands for what was there: the dummy, or OTHER for a code string."""
    values = after.strip(b" \0").split(b"\\")
    return any(word in values and word not in before for word in (b"OTHER", DUMMY.encode()))


def usual_vr(vrs: tuple[str, ...]) -> str:
    """Of several VRs the one a reader without the other attributes should take: words before bytes, US before SS."""
    return "OW" if "OW" in vrs else vrs[0]
