"""What the documents show of the demo is what its report code makes of the kept result; made again, nothing changes."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from deploy.demo import chart, record, results
from deploy.demo.page import names_of
from deploy.demo.report import ALONE_AT_MOST, REFUSALS, TOGETHER_AT_LEAST
from deploy.demo.workplace import Workplace, write_json
from tests.demo.test_report import good


def result() -> dict:
    return json.loads(record.RESULT.read_text(encoding="utf-8"))


def test_readmes_transcript_is_what_the_demo_says_of_the_kept_result() -> None:
    readme = record.README.read_text(encoding="utf-8")
    assert record.transcript(result()) in readme
    assert record.with_transcript(readme, result()) == readme


def test_the_pictures_are_the_kept_results(tmp_path: Path) -> None:
    plain = result()
    assert record.SVG.read_text(encoding="utf-8") == chart.svg(plain["tested"], names_of(plain))
    again = chart.write_png(tmp_path / "again.png", plain["tested"], names_of(plain))
    assert record.PNG.read_bytes() == again.read_bytes()


def test_the_kept_result_is_of_a_demo_that_kept_its_promises_and_names_no_machine() -> None:
    plain = result()
    assert plain["failures"] == [] and all(plain["refusals"].values())
    assert plain["auc_together"] >= TOGETHER_AT_LEAST
    assert all(node["auc_local_only"] <= ALONE_AT_MOST for node in plain["nodes"])
    assert not re.search(r'"/|127\.0\.0\.1', record.RESULT.read_text(encoding="utf-8"))


def test_readme_tells_every_attack_in_a_line() -> None:
    readme = record.README.read_text(encoding="utf-8").lower()
    for attack in REFUSALS.values():
        assert attack.otherwise.lower() in readme, attack.title
        assert f"**{attack.title}**" in readme, attack.title


def test_a_demo_that_broke_a_promise_is_not_put_into_the_documents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = good()
    report.refusals["extra_tensor"] = False
    before = record.RESULT.read_bytes()
    assert record.main([str(write_json(tmp_path / "demo-report.json", report.plain()))]) == 2
    assert record.RESULT.read_bytes() == before
    assert capsys.readouterr().err.startswith("error: ")


def test_another_demos_documents_have_the_shape_of_those_that_are_kept(tmp_path: Path) -> None:
    """What `deploy/demo.sh --docs` writes: the same files, lines, curves and pixels, with that demo's figures."""
    readme = tmp_path / "README.md"
    readme.write_text(record.README.read_text(encoding="utf-8"), encoding="utf-8")
    plain = good().plain()
    names = ("demo.json", "demo.svg", "demo.png")
    assert record.put(plain, tmp_path, readme) == [*(tmp_path / name for name in names), readme]
    (result, svg, png), (old_result, old_svg, old_png) = (
        [folder / name for name in names] for folder in (tmp_path, record.DOCS)
    )
    assert json.loads(result.read_text()).keys() == json.loads(old_result.read_text()).keys()
    assert drawn(svg) == drawn(old_svg)
    assert svg.read_text() != old_svg.read_text()
    assert Image.open(png).size == Image.open(old_png).size
    new, old = (text.read_text(encoding="utf-8").splitlines() for text in (readme, record.README))
    assert len(new) == len(old)
    changed = [number for number, (one, two) in enumerate(zip(new, old, strict=True)) if one != two]
    begin = old.index("```text")
    assert changed and begin < changed[0] and changed[-1] < old.index("```", begin)


def drawn(svg: Path) -> Counter[str]:
    """How many elements of each kind a picture has."""
    return Counter(element.tag for element in ElementTree.fromstring(svg.read_text(encoding="utf-8")).iter())


def test_every_demo_leaves_its_curves_as_svg_and_png(tmp_path: Path) -> None:
    place, report = Workplace(tmp_path, as_root=False), good()
    assert results.write(place, report) == [place.report, place.page, place.svg, place.png]
    plain = json.loads(place.report.read_text(encoding="utf-8"))
    assert place.svg.read_text(encoding="utf-8") == chart.svg(plain["tested"], names_of(plain))
    assert place.png.read_bytes()[:4] == b"\x89PNG"
