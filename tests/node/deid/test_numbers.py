"""Numbers that stay are recognised in one step: exactly those that the long way would write as they stand."""

import random

import pytest

from mediator.deid.mandatory import Mandatory
from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.values import Subject
from node.deid.profiles import load_profile, standard
from node.deid.reader import ByteRun, parse
from node.deid.rewrite import Rewriter
from tests.sim.dicom import element, raw_file

KEYED = Pseudonyms(bytes(32), "liver")
VRS = {0x00200032: "DS", 0x00201041: "DS", 0x00200013: "IS", 0x00181150: "IS", 0x00280010: "US", 0x00100020: "LO"}
PIECES = ["1", "-", "+", ".", "e", "E", " ", "\\", "0", "27", "1234567890123456", "\0", "A", "-190.5", "1e-3", "１"]


@pytest.mark.parametrize("profile", ["eucaim", "basic"])
@pytest.mark.parametrize("tag", [0x00200032, 0x00201041, 0x00200013, 0x00181150])
def test_the_short_way_writes_what_the_long_way_would(profile, tag):
    table, chance, short = load_profile(profile), random.Random(tag), 0
    rewriter = Rewriter(table, Mandatory(standard()), Subject(KEYED, KEYED.patient("1"), 9))
    values = ["-190.5\\-190.5\\-1200.25 ", "12", "7 ", "1\\2", "1\\2\\3\\4 ", "1" * 32, "1" * 34, "\\1 ", " 1", "1  "]
    values += ["".join(chance.choices(PIECES, k=chance.randint(1, 5))) for _ in range(1000)]
    for value in values:
        raw = value.encode()
        parsed = parse(raw_file(element(tag, VRS[tag].encode(), raw + b" " * (len(raw) % 2))), lambda tag: VRS[tag])
        (run,) = parsed.runs
        long = rewriter._make(parsed, parsed.node(run.elements[0]), b"", "")
        chunk = rewriter._run(parsed, run, b"", [])
        assert chunk == long, value
        short += rewriter._is_number(run.elements[0])
    assert short > 40


def test_a_number_in_an_element_of_vr_un_is_written_in_its_own_vr():
    """Its twelve bytes of header must not be copied."""
    rewriter = Rewriter(load_profile("eucaim"), Mandatory(standard()), Subject(KEYED, KEYED.patient("1"), 9))
    parsed = parse(raw_file(element(0x00200013, b"UN", b"12")), lambda tag: "IS")
    run: ByteRun = parsed.runs[0]
    assert rewriter._run(parsed, run, b"", []) == rewriter._make(parsed, parsed.node(run.elements[0]), b"", "")
    assert not rewriter._is_number(run.elements[0])
