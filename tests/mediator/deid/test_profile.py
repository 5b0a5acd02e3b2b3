import pytest

from mediator.deid.profile import compile_profile, parse
from mediator.deid.rules import DEFAULT_RULE, ElementAction
from mediator.deid.tables import Standard, parse_standard, tag_text
from mediator.errors import Malformed, UnsupportedVersion
from node.deid.describe import describe
from node.deid.profiles import load_profile, profile_names, standard

EMPTY = """
format = 1
name = "nothing"
version = 1
title = "nothing at all"
scope = "project"
options = []
dates = "removed"
[elements]
[vr]
"""


def tag(keyword: str) -> int:
    return standard().by_keyword()[keyword].tag


def action(profile: str, keyword: str) -> ElementAction:
    return load_profile(profile).rule(tag(keyword)).action


def test_an_unknown_element_is_removed():
    for profile in profile_names():
        table = load_profile(profile)
        for unknown in (0x00107777, 0x00090010, 0x00091001, 0x60003000, 0x50003000, 0x00080000):
            assert table.rule(unknown) is DEFAULT_RULE
        assert table.rule(0xFFFCFFFC).action is ElementAction.REMOVE  # DataSetTrailingPadding


def test_a_profile_that_says_nothing_keeps_nothing_beyond_what_the_standard_replaces():
    table = compile_profile(parse(EMPTY), standard())
    assert not {rule.action for rule in table.rules.values()} & {
        ElementAction.KEEP,
        ElementAction.CLEAN,
        ElementAction.SHIFT_DATE,
    }
    assert table.rule(tag("Rows")) is DEFAULT_RULE


def test_every_row_of_the_standards_table_without_an_option_is_followed_by_the_basic_profile():
    table, rows = load_profile("basic"), standard().confidentiality
    known = {number: row for number, row in rows.items() if number in standard().elements}
    assert len(rows) > 600 and len(known) > 590
    for number, row in known.items():
        rule = table.rule(number)
        if rule.source.startswith("basic:"):
            continue
        assert row.basic in rule.source
        if row.basic == "X":
            assert rule.action is ElementAction.REMOVE, tag_text(number)
        else:
            assert rule.action in {
                ElementAction.EMPTY,
                ElementAction.DUMMY,
                ElementAction.REPLACE_UID,
                ElementAction.RECURSE,
            }, tag_text(number)


def test_rows_newer_than_the_dictionary_are_removed():
    newer = set(standard().confidentiality) - set(standard().elements)
    assert newer and all(
        load_profile(name).rule(number) is DEFAULT_RULE for name in profile_names() for number in newer
    )


def test_no_profile_of_ours_keeps_free_text_as_it_came():
    shaped = {"US", "SS", "UL", "SL", "FL", "FD", "AT", "DS", "IS", "TM", "DA", "DT", "OW", "OV"}
    for name in profile_names():
        for rule in load_profile(name).rules.values():
            assert rule.action is not ElementAction.KEEP or set(rule.vrs) <= shaped, rule


def test_eucaim_keeps_what_its_handbook_wants():
    assert action("eucaim", "PatientID") is ElementAction.PSEUDONYM
    assert action("eucaim", "AcquisitionDate") is ElementAction.SHIFT_DATE
    assert action("eucaim", "PatientAge") is ElementAction.CAP_AGE
    for keyword in ("Modality", "BodyPartExamined", "Manufacturer", "ManufacturerModelName", "PatientSex"):
        assert action("eucaim", keyword) is ElementAction.CLEAN
    for keyword in ("SliceThickness", "PixelSpacing", "Rows", "Columns", "StudyTime", "PatientWeight"):
        assert action("eucaim", keyword) is ElementAction.KEEP
    for keyword in ("PatientBirthDate", "ReferringPhysicianName"):
        assert action("eucaim", keyword) is ElementAction.EMPTY
    assert action("eucaim", "OtherPatientIDs") is ElementAction.REMOVE


def test_every_picture_is_looked_at_unless_the_profile_says_otherwise_and_then_it_is_another_profile():
    assert {load_profile(name).look_at for name in profile_names()} == {"every-picture"}
    texts = [EMPTY, *(f'look_at = "{what}"\n{EMPTY}' for what in ("every-picture", "unless-no"))]
    plain, said, believing = (compile_profile(parse(text), standard()) for text in texts)
    assert (believing.look_at, plain.look_at) == ("unless-no", "every-picture")
    assert plain.fingerprint == said.fingerprint != believing.fingerprint


def test_a_fingerprint_is_stable_and_follows_every_rule():
    text = EMPTY.replace("[vr]", '[vr]\nUS = "keep"')
    first = compile_profile(parse(text), standard()).fingerprint
    assert compile_profile(parse(text), standard()).fingerprint == first
    assert compile_profile(parse(EMPTY), standard()).fingerprint != first
    assert load_profile("eucaim").fingerprint != load_profile("basic").fingerprint


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("format = 1", "format = 2", UnsupportedVersion),
        ('name = "nothing"', "", Malformed),
        ("[vr]", "[surprise]\n[vr]", Malformed),
        ("[vr]", '[vr]\nUS = "publish"', Malformed),
        ("[elements]", '[elements]\nNoSuchThing = "keep"', Malformed),
        ("[elements]", '[elements]\nRows = "publish"', Malformed),
        ("options = []", 'options = ["keep-all"]', Malformed),
        ('dates = "removed"', 'dates = "kept"', Malformed),
        ('dates = "removed"', 'dates = "whatever"', Malformed),
        ("options = []", 'options = ["full-dates", "modified-dates"]', Malformed),
        ('scope = "project"', 'scope = "world"', Malformed),
        ('name = "nothing"', 'name = "a b"', Malformed),
        ("version = 1", "version = true", Malformed),
        ("version = 1", 'version = 1\nlook_at = "nothing"', Malformed),
        ("version = 1", 'version = 1\nlooks_at = "unless-no"', Malformed),
        ("[vr]", "[vr", Malformed),
    ],
)
def test_a_profile_that_is_not_understood_is_refused(old, new, error):
    with pytest.raises(error):
        compile_profile(parse(EMPTY.replace(old, new, 1)), standard())


def test_a_damaged_table_is_refused():
    with pytest.raises(Malformed):
        parse_standard(elements="tag,vr\nzz100010,LO\n", confidentiality="", uids="", terms="")


def test_describe_lists_every_rule():
    table = load_profile("eucaim")
    text = describe(table, standard())
    assert isinstance(standard(), Standard)
    assert text.count("\n| (") == len(table.rules) + len(table.private)
    assert "| (0010,0020) | PatientID | LO | pseudonym | eucaim: PatientID |" in text


def test_the_two_stages_and_the_public_scripts_intent_are_profiles():
    assert profile_names() == ("basic", "eucaim", "eucaim-v5", "pseudonymise")
    assert load_profile("pseudonymise").scope == "site" and load_profile("eucaim").scope == "project"
    assert action("pseudonymise", "IssuerOfPatientID") is ElementAction.SITE
    assert action("pseudonymise", "StudyDate") is ElementAction.KEEP
    assert action("eucaim-v5", "StudyDate") is ElementAction.TRUNCATE_DATE
    assert action("eucaim-v5", "InstitutionName") is ElementAction.SITE_HASH
    assert load_profile("eucaim-v5").rule(tag("PatientID")).constant == "EUCAIM-"
    for name in profile_names():
        assert load_profile(name).departs == ()


def test_a_time_zone_stays_with_its_dates():
    assert action("eucaim", "TimezoneOffsetFromUTC") is ElementAction.KEEP_ZONE
    assert action("basic", "TimezoneOffsetFromUTC") is ElementAction.REMOVE
