"""Write every transcript anew: `python -m tests.transcripts.record`. What changed for people is in `git diff`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.transcripts.desk import furnish, play, stories


def main() -> None:
    for story in stories():
        with tempfile.TemporaryDirectory() as folder:
            furnish(Path(folder))
            story.write_text(play(story, Path(folder)))


if __name__ == "__main__":
    main()
