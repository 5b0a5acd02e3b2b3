"""Puts a finished demo into the documents: `deploy/demo.sh --docs`, or `python -m deploy.demo.record [REPORT]` later.

Keeps what README and `deploy/docs` tell of the demo as `deploy/docs/demo.json` (without paths of this machine), and
makes the pictures and README's transcript from it. Without REPORT they are made again from what is kept; nothing then
changes, and a test holds that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.demo import chart
from deploy.demo.arguments import REPOSITORY
from deploy.demo.closing import closing
from deploy.demo.page import names_of
from deploy.demo.workplace import write_json

DOCS = REPOSITORY / "deploy" / "docs"
RESULT, SVG, PNG = DOCS / "demo.json", DOCS / "demo.svg", DOCS / "demo.png"
README = REPOSITORY / "README.md"
BEGIN, END = "<!-- the demo's last lines, by `python -m deploy.demo.record` -->\n```text\n", "```\n"
KEPT = (
    "rounds", "seconds_total", "auc_global", "auc_untrained", "auc_together", "tested", "refusals", "refusal_evidence",
    "planted_identifiers", "planted_found", "planted_found_in_source", "files_searched", "failures",
)  # fmt: skip
_PATHS = ("audit_dir", "audit_key", "witness_file", "dataset_version")


def kept(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Of a report what the documents need: no path, no machine, no dataset's hash."""
    nodes = [{name: value for name, value in node.items() if name not in _PATHS} for node in plain["nodes"]]
    return {name: plain[name] for name in KEPT} | {"nodes": nodes}


def transcript(plain: Mapping[str, Any]) -> str:
    """What the demo's terminal says last."""
    return "\n".join(closing(plain)) + "\n"


def with_transcript(readme: str, plain: Mapping[str, Any]) -> str:
    """README with the transcript of this report in its place."""
    before, rest = readme.split(BEGIN)
    return before + BEGIN + transcript(plain) + END + rest.partition(END)[2]


def put(plain: Mapping[str, Any], docs: Path = DOCS, readme: Path = README) -> list[Path]:
    """Write everything that the documents show of this demo; where it stands."""
    result, svg, png = (docs / path.name for path in (RESULT, SVG, PNG))
    write_json(result, kept(plain))
    svg.write_text(chart.svg(plain["tested"], names_of(plain)), encoding="utf-8")
    chart.write_png(png, plain["tested"], names_of(plain))
    readme.write_text(with_transcript(readme.read_text(encoding="utf-8"), plain), encoding="utf-8")
    return [result, svg, png, readme]


def main(words: list[str]) -> int:
    """Refuses a demo that did not keep its promises."""
    plain = json.loads((Path(words[0]) if words else RESULT).read_text(encoding="utf-8"))
    if plain["failures"]:
        print("error: this demo did not keep every promise\nhint: run it again", file=sys.stderr)
        return 2
    put(plain)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
