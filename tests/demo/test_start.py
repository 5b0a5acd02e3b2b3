"""`deploy/demo.sh` before the demo itself."""

from __future__ import annotations

import re
import tomllib

from deploy.demo.arguments import REPOSITORY


def test_byte_code_is_made_of_every_package_that_other_users_start() -> None:
    """A hub's or a node's user may not write it beside the source, and would compile at every start."""
    script = (REPOSITORY / "deploy" / "demo.sh").read_text(encoding="utf-8")
    named = re.search(r'compileall -q -j 0 "\$repo"/\{([a-z,]+)\}', script)
    assert named is not None
    built = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    packages = built["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert sorted(named.group(1).split(",")) == sorted(packages)
