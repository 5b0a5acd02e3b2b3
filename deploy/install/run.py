"""Where `install.sh` comes in: this folder stands in a checkout, in an opened bundle or beside an installed version."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    sys.path.insert(0, str(here.parent))
    sys.exit(import_module(f"{here.name}.main").main(sys.argv[1:]))
