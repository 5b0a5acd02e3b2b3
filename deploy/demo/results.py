"""What a demo leaves to look at: the report for programs, the page for people, and the curves as SVG and PNG."""

from __future__ import annotations

from pathlib import Path

from deploy.demo import chart, page
from deploy.demo.report import Report
from deploy.demo.workplace import Workplace, write_json


def write(place: Workplace, report: Report) -> list[Path]:
    """Write all four; where they lie."""
    plain = report.plain()
    names = page.names_of(plain)
    write_json(place.report, plain)
    place.page.write_text(page.page(plain), encoding="utf-8")
    place.svg.write_text(chart.svg(plain["tested"], names), encoding="utf-8")
    chart.write_png(place.png, plain["tested"], names)
    return [place.report, place.page, place.svg, place.png]
