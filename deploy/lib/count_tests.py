"""Count pytest's runs from their JUnit reports: `count_tests.py REPORT STATUS [REPORT STATUS...]` prints
`passed failed skipped`, together.

An error in a fixture counts as a failure, and so does a run that ended badly without saying where.
"""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def counted(report: Path, status: int) -> tuple[int, int, int]:
    """Return (passed, failed, skipped); never (n, 0, n) for a run whose exit status was not 0."""
    try:
        # Our own pytest wrote it a moment ago: no stranger's XML.
        suites = list(ElementTree.parse(report).getroot().iter("testsuite"))  # noqa: S314
    except (OSError, ElementTree.ParseError):
        return 0, 1, 0

    def total(name: str) -> int:
        return sum(int(suite.get(name, 0)) for suite in suites)

    failed = total("failures") + total("errors")
    passed = max(0, total("tests") - failed - total("skipped"))
    return passed, failed if failed or status == 0 else 1, total("skipped")


if __name__ == "__main__":
    runs = zip(sys.argv[1::2], sys.argv[2::2], strict=True)
    print(*map(sum, zip(*(counted(Path(report), int(status)) for report, status in runs), strict=True)))
