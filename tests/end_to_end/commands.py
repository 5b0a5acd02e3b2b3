"""The `cloister` command line as the tests run it: the driver's, and what a fault has to look like."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.driver import commands, services
from deploy.driver.commands import CLOISTER, ENVIRONMENT, Commands, as_user

__all__ = ["CLOISTER", "ENVIRONMENT", "Done", "as_user", "attempt", "cloister", "start"]

WITHIN_S = 90.0


@dataclass(frozen=True)
class Done(commands.Done):
    """A command that ended."""

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


def attempt(*words: object, uid: int | None = None, within_s: float = WITHIN_S, **environment: str) -> Done:
    """Run `cloister WORDS…` to its end, whatever that is."""
    ran = Commands(environment={**ENVIRONMENT, **environment}).attempt(*words, uid=uid, within_s=within_s)
    return Done(ran.words, ran.code, ran.out, ran.err)


def cloister(*words: object, uid: int | None = None, within_s: float = WITHIN_S) -> Done:
    """Run `cloister WORDS…`, which must exit 0."""
    done = attempt(*words, uid=uid, within_s=within_s)
    assert done.code == 0, done
    return done


def start(log: Path, *words: object, uid: int | None = None) -> Any:
    """Start `cloister WORDS…` in a session of its own and leave it running; it talks into `log`."""
    return services.start(Commands(), log, *words, uid=uid)
