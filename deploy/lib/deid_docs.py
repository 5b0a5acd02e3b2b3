"""Write the generated part of deploy/docs/deidentification.md again, from the profiles the engine compiles.

python deploy/lib/deid_docs.py            write it
python deploy/lib/deid_docs.py --check    exit 4 when the page says something else than the code does
"""

from __future__ import annotations

import sys
from pathlib import Path

from node.deid.describe import compare
from node.deid.profiles import load_profile, profile_names, standard

PAGE = Path(__file__).resolve().parents[1] / "docs" / "deidentification.md"
BEGIN, END = "<!-- generated: deploy/lib/deid_docs.py -->\n", "<!-- end of generated -->\n"


def page(text: str) -> str:
    """The page with its generated part made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = [load_profile(name) for name in profile_names()]
    return before + BEGIN + "\n" + compare(tables, standard()) + "\n" + END + after


def main(arguments: list[str]) -> int:
    text = PAGE.read_text(encoding="utf-8")
    new = page(text)
    if arguments == ["--check"]:
        print("nothing differs" if new == text else f"{PAGE.name} differs: run this without --check")
        return 0 if new == text else 4
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
