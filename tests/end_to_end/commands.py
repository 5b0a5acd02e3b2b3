"""The `cloister` command line as a person runs it: a process of its own, with an exit code and words on stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLOISTER = Path(sys.executable).with_name("cloister")
# nothing of whoever runs the tests is handed on
ENVIRONMENT: Mapping[str, str] = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def said(self, prefix: str) -> list[str]:
        return [line.removeprefix(prefix) for line in self.err.splitlines() if line.startswith(prefix)]

    def fault(self, code: int, *texts: str) -> str:
        """One `error:` line with all of `texts`, this exit code, at most one `hint:`, no traceback; the line."""
        assert self.code == code, self
        errors = self.said("error: ")
        assert len(errors) == 1 and len(self.said("hint: ")) <= 1, self
        assert "Traceback" not in self.err + self.out and "internal error" not in self.err, self
        for text in texts:
            assert text in errors[0], self
        return errors[0]


def as_user(uid: int | None) -> dict[str, Any]:
    """What `subprocess` needs to start a program as this user, without any of root's groups."""
    return {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}


def attempt(*words: object, uid: int | None = None, within_s: float = 90.0, **environment: str) -> Done:
    """Run `cloister WORDS…` to its end, whatever that is."""
    texts = tuple(str(word) for word in words)
    ended = subprocess.run(
        [str(CLOISTER), *texts], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd="/", timeout=within_s,
        env={**ENVIRONMENT, **environment}, check=False, **as_user(uid),
    )  # fmt: skip
    return Done(texts, ended.returncode, ended.stdout, ended.stderr)


def cloister(*words: object, uid: int | None = None, within_s: float = 90.0) -> Done:
    """Run `cloister WORDS…`, which must exit 0."""
    done = attempt(*words, uid=uid, within_s=within_s)
    assert done.code == 0, done
    return done


def start(log: Path, *words: object, uid: int | None = None) -> subprocess.Popen[bytes]:
    """Start `cloister WORDS…` in a session of its own and leave it running; it talks into `log`."""
    with log.open("ab") as out:
        return subprocess.Popen(
            [str(CLOISTER), *(str(word) for word in words)], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            cwd="/", env=dict(ENVIRONMENT), start_new_session=True, **as_user(uid),
        )  # fmt: skip
