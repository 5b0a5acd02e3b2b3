"""The page and the last lines of the demo: whole, honest, readable by anybody, and nothing in them from outside."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from deploy.demo import chart
from deploy.demo.closing import closing, record, refused, sentence
from deploy.demo.page import page
from deploy.demo.picture import png
from deploy.demo.report import REFUSALS
from tests.demo.test_report import good
from tests.sim import pictures

VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Tags in order; complains about one that is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def plain() -> dict[str, Any]:
    report = good()
    shot = png(pictures.us(1, 60, 80))
    report.picture = {
        "before": shot, "after": shot, "header": [["PatientName", "<Jansen>&", ""], ["Modality", "US", "US"]],
        "elements_before": 30, "elements_after": 12,
    }  # fmt: skip
    report.evidence["client_without_certificate"] = {"tls_alert": "TLSV13_ALERT_CERTIFICATE_REQUIRED"}
    return report.plain()


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


def test_the_page_is_one_file_that_asks_nothing_of_anybody() -> None:
    text = page(plain())
    for tag, attributes in read(text).seen:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        assert not [name for name in attributes if name.startswith("on")]
        assert str(attributes.get("src") or "data:").startswith("data:image/png;base64,") or tag != "img"
        assert "href" not in attributes
    assert "url(" not in text and "@import" not in text
    assert re.findall(r"https?://[^\"]*", text) == ["http://www.w3.org/2000/svg"]


def test_the_page_says_everything_and_escapes_what_it_was_given() -> None:
    text = page(plain())
    assert "&lt;Jansen&gt;&amp;" in text and "<Jansen>" not in text
    for words in ("removed", "kept for testing", "Every promise was kept", "pixels_missing".replace("_", " ")[:6]):
        assert words in text
    for attack in REFUSALS.values():
        assert attack.otherwise[1:] in text.replace("&#x27;", "'")
    assert text.count('class="yes">refused') == len(REFUSALS)


def test_a_broken_promise_and_an_attack_that_got_through_are_on_the_page() -> None:
    report = good()
    report.refusals["extra_tensor"] = False
    report.hospitals["birch"].audit_ok = False
    text = page(report.plain())
    assert "Not every promise was kept" in text and "Every promise was kept" not in text
    assert "birch: the audit log does not verify" in text
    assert text.count('class="no">not refused') == 1 and text.count("✗ broken") == 1


def test_every_picture_has_words_and_every_table_heads() -> None:
    reader = read(page(plain()))
    assert all(attributes.get("alt") for tag, attributes in reader.seen if tag == "img")
    tables = sum(tag == "table" for tag, _ in reader.seen)
    assert tables == sum(tag == "thead" for tag, _ in reader.seen) >= 6
    headings = [tag for tag, _ in reader.seen if tag in ("h1", "h2")]
    assert headings[0] == "h1" and headings.count("h1") == 1


def test_the_page_can_be_read_by_light_by_dark_and_on_paper() -> None:
    style = page(plain())
    assert "prefers-color-scheme: dark" in style and "@media print" in style and 'content="light dark"' in style


def test_the_curves_are_the_figures_and_labels_do_not_lie_on_each_other(tmp_path: Path) -> None:
    tested = {
        "together": [0.5, 0.8, 0.95],
        "aster": [0.5, 0.6, 0.7],
        "birch": [0.5, 0.61, 0.701],
        "cedar": [0.5, 0.6, 0.69],
    }
    text = chart.svg(tested, {"aster": "aster <x>"})
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    lines = root.findall(f"{space}polyline")
    assert len(lines) == 4
    heights = [[float(point.split(",")[1]) for point in (line.get("points") or "").split()] for line in lines]
    assert all(sorted(each, reverse=True) == each for each in heights), "up is better"
    ends = [float(each.get("y") or 0) for each in root.findall(f"{space}text") if "alone" in (each.text or "")]
    assert min(b - a for a, b in zip(sorted(ends), sorted(ends)[1:], strict=False)) >= 17.9
    assert any(each.text == "aster <x> alone 0.70" for each in root.findall(f"{space}text"))
    first, second = (chart.write_png(tmp_path / name, tested, {}).read_bytes() for name in ("a.png", "b.png"))
    assert first == second and first.startswith(b"\x89PNG")
    assert chart.svg(tested, {"aster": "aster <x>"}) == text


def test_the_last_lines_are_the_figures() -> None:
    lines = closing(plain())
    text = "\n".join(lines)
    assert "360 studies at 3 hospitals" in text
    assert "12, found 12; good studies lost: 0 of 270" in text
    assert "930 planted, 0 found" in text
    assert "0.50 → 0.85 → 0.91 → 0.94 → 0.96" in text
    assert "6, refused 6" in text
    assert max(map(len, lines)) <= 120
    said = " ".join(lines[lines.index("") + 1 :])
    assert said == sentence(plain())
    assert "an AUC of 0.96 where alone none passes 0.71" in said
    assert "6 of 6 attacks were refused" in said


@pytest.mark.parametrize(
    ("proof", "words"),
    [
        ({"tls_alert": "TLSV13_ALERT_CERTIFICATE_REQUIRED"}, "TLS alert certificate required"),
        ({"site": "aster", "audit_sequence": 5, "code": "x"}, "record 5 of aster's audit log says x"),
        ({"why": "it was not tried"}, "it was not tried"),
        ({}, "no evidence"),
    ],
)
def test_a_refusal_names_its_record(proof: dict[str, object], words: str) -> None:
    assert record(proof) == words


def test_a_line_an_attack() -> None:
    lines = refused(plain())
    assert len(lines) == len(REFUSALS)
    assert all("; otherwise " in line for line in lines)
