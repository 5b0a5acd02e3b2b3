"""Every row of PS3.15 Table E.1-1 under every option of PS3.15 E.3 alone, and under the named profiles."""

import random
import tomllib

import pytest

from mediator.deid.profile import OPTIONS, SHARED_DATES, compile_profile, parse
from mediator.deid.rules import ElementAction
from mediator.deid.statement import BASIC, OPTION_CODES, statement
from mediator.deid.tables import tag_text
from node.deid.profiles import load_profile, profile_names, profile_text, standard

DATES = {"full-dates": "kept", "modified-dates": "shifted"}
KNOWN = {tag: row for tag, row in standard().confidentiality.items() if tag in standard().elements}
# what PS3.15 E.1-1's basic codes may come to; D and U of a sequence: its items, cleaned inside
BASIC_ACTIONS = {
    "X": {ElementAction.REMOVE},
    "Z": {ElementAction.EMPTY},
    "X/Z": {ElementAction.EMPTY},
    "U": {ElementAction.REPLACE_UID},
    "X/Z/U*": {ElementAction.RECURSE},
    "D": {ElementAction.DUMMY, ElementAction.RECURSE, ElementAction.REPLACE_UID},
}
DATE_VRS = {"DA", "DT", "TM", "SH"}


def table_for(*options: str, elements: str = "", dates: str | None = None):
    chosen = dates or next((DATES[option] for option in options if option in DATES), "removed")
    return compile_profile(
        parse(
            f'format = 1\nname = "site"\nversion = 1\ntitle = "a site\'s own"\nscope = "project"\n'
            f'options = {list(options)!r}\ndates = "{chosen}"\n[elements]\n{elements}\n[vr]\n'
        ),
        standard(),
    )


def expected(code: str, option: str, vrs: tuple[str, ...]) -> set[ElementAction]:
    """What an option's code may come to: K keeps, C keeps a part or nothing."""
    if vrs == ("SQ",):
        return {ElementAction.RECURSE}
    if set(vrs) & {"OB", "OW", "UN"}:
        return {ElementAction.REMOVE}  # stricter than K: bytes that nobody can read
    if option in DATES:
        shift = ElementAction.KEEP if option == "full-dates" else ElementAction.SHIFT_DATE
        return {{"SH": ElementAction.KEEP_ZONE, "TM": ElementAction.KEEP}.get(vrs[0], shift)}
    if vrs == ("AS",):
        return {ElementAction.CAP_AGE}
    if option == "patient-characteristics":
        return {ElementAction.CLEAN} if set(vrs) <= {"CS", "LO", "SH"} else {ElementAction.KEEP}
    return {ElementAction.KEEP} if code == "K" else {ElementAction.CLEAN, ElementAction.REMOVE}


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_every_row_under_one_option_alone_does_what_its_code_says(option):
    table, alone = table_for(option), table_for()
    assert len(KNOWN) > 600
    for tag, row in KNOWN.items():
        rule = table.rule(tag)
        code = row.options.get(option)
        if code is None:
            assert rule == alone.rule(tag), tag_text(tag)
            continue
        if option == "modified-dates" and standard().elements[tag].keyword in SHARED_DATES:
            assert rule.action is alone.rule(tag).action, tag_text(tag)
            continue
        assert rule.action in expected(code, option, standard().elements[tag].vrs), (tag_text(tag), rule)
        assert rule.source == f"PS3.15 E.1-1: {option} {code}"


def test_every_row_without_an_option_does_what_the_basic_code_says():
    table = table_for()
    for tag, row in KNOWN.items():
        allowed = BASIC_ACTIONS.get(row.basic, {ElementAction.DUMMY, ElementAction.RECURSE, ElementAction.REPLACE_UID})
        if standard().elements[tag].vrs == ("SQ",) and row.basic == "U":
            allowed = {ElementAction.RECURSE}
        assert table.rule(tag).action in allowed, (tag_text(tag), row.basic)


@pytest.mark.parametrize("name", profile_names())
def test_every_row_in_a_named_profile_follows_its_options_or_is_named_in_its_file(name):
    table, named = load_profile(name), tomllib.loads(profile_text(name))["elements"]
    for tag, row in KNOWN.items():
        rule = table.rule(tag)
        if standard().elements[tag].keyword in named:
            assert rule.source.startswith(f"{name}: ")
        elif table.dates == "shifted" and standard().elements[tag].keyword in SHARED_DATES:
            assert rule.source == f"PS3.15 E.1-1: {row.basic}, a date that many patients share"
        elif taken := {option: row.options[option] for option in table.options if option in row.options}:
            strictest = min(taken.values())
            assert rule.source in {f"PS3.15 E.1-1: {o} {c}" for o, c in taken.items() if c == strictest}
        else:
            assert rule.source == f"PS3.15 E.1-1: {row.basic}"


def test_where_two_options_meet_the_stricter_wins():
    calibrated = standard().by_keyword()["DateOfLastCalibration"].tag
    assert table_for("device-identity").rule(calibrated).action is ElementAction.KEEP
    both = table_for("device-identity", "modified-dates", dates="truncated")
    assert both.rule(calibrated).action is ElementAction.TRUNCATE_DATE


def test_no_date_that_many_patients_share_is_shifted_by_one_patients_days():
    known = standard().by_keyword()
    assert set(known) >= SHARED_DATES
    for table in map(load_profile, profile_names()):
        shifted = {
            keyword for keyword in SHARED_DATES if table.rule(known[keyword].tag).action is ElementAction.SHIFT_DATE
        }
        assert not shifted


@pytest.mark.parametrize("name", profile_names())
def test_no_order_of_a_profiles_lines_changes_a_verdict(name):
    text = profile_text(name)
    head, _, rest = text.partition("[elements]\n")
    elements, _, vrs = rest.partition("[vr]\n")
    plain = tomllib.loads(text)
    for seed in range(5):
        mixed = random.Random(seed)

        def shuffled(block: str, mixed=mixed) -> str:
            lines = [line for line in block.splitlines() if "=" in line]
            mixed.shuffle(lines)
            return "\n".join(lines)

        options = mixed.sample(plain["options"], len(plain["options"]))
        top = [f"{key} = {plain[key]!r}" for key in ("format", "name", "version", "title", "scope", "dates")]
        top.append(f"options = {options!r}")
        mixed.shuffle(top)
        other = "\n".join(top) + f"\n[vr]\n{shuffled(vrs)}\n[elements]\n{shuffled(elements)}\n"
        table = compile_profile(parse(other), standard())
        assert table.fingerprint == load_profile(name).fingerprint and table.rules == load_profile(name).rules
    assert head


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_exactly_the_options_applied_are_stated(option):
    stated = statement(table_for(option))
    by_instance = {"clean-pixel-data", "clean-visual-features"}
    assert stated.codes == tuple(sorted({BASIC} | ({OPTION_CODES[option]} - {OPTION_CODES[o] for o in by_instance})))
    assert stated.temporal == {"full-dates": "UNMODIFIED", "modified-dates": "MODIFIED"}.get(option, "REMOVED")


def test_pixels_are_stated_clean_only_where_somebody_looked():
    table = load_profile("eucaim")
    assert OPTION_CODES["clean-pixel-data"] not in statement(table).codes
    assert OPTION_CODES["clean-pixel-data"] in statement(table, pixels_examined=True).codes
    assert OPTION_CODES["clean-visual-features"] in statement(table, defaced=True).codes


def test_a_profile_that_keeps_more_than_the_table_does_not_claim_the_basic_profile():
    table = table_for("clean-descriptors", elements='PatientComments = "keep"')
    assert table.departs == ("PatientComments",) and BASIC not in statement(table).codes
    assert OPTION_CODES["clean-descriptors"] in statement(table).codes
    assert table_for(elements='PatientComments = "empty"').departs == ()


def test_private_elements_stay_only_by_option_creator_and_element():
    table, without = table_for("safe-private"), table_for()
    for number in (0x0019100C, 0x0019110C):  # whatever block the creator reserved
        assert table.private_rule("SIEMENS MR HEADER", number).action is ElementAction.KEEP
        assert without.private_rule("SIEMENS MR HEADER", number).action is ElementAction.REMOVE
    assert table.private_rule("SIEMENS MR HEADER", 0x0019100F).action is ElementAction.REMOVE
    assert table.private_rule("SOMEBODY", 0x0019100C).action is ElementAction.REMOVE
    numbers = {"DS", "IS", "US", "SS", "SL", "FL", "FD"}
    kept = [rule for rule in table.private.values() if rule.action is ElementAction.KEEP]
    assert len(kept) > 40 and all(set(rule.vrs) <= numbers for rule in kept)
    others = {rule.action for rule in table.private.values()} - {ElementAction.KEEP}
    assert others == {ElementAction.CLEAN, ElementAction.RECURSE, ElementAction.REMOVE}  # terms, frames; no dates
