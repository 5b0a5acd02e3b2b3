"""What `cloister check` says of a running node, as its core answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mediator.errors import CloisterError, UsageFault
from node.cli.findings import finding
from node.cli.it.check_hub import connection
from node.host.config import NodeConfig

_STATE = "cloister node audit state"
_TROUBLE = {
    "set_back": "set back, so nothing is served",
    "not_witnessed": "the hub does not sign it, it goes on elsewhere than the hub saw it",
    "clock": "the clock is not believed, so nothing is recorded or served",
}


def running(config: NodeConfig) -> Iterator[dict[str, Any]]:
    """One finding for core, and where it answers those that it alone knows."""
    from node.cli.admin import client_for
    from node.ipc.messages import Empty
    from node.ipc.node import STATUS

    try:
        with client_for(config, STATUS) as client:
            status = client.call(STATUS, Empty(), timeout_s=5.0)
    except UsageFault as fault:
        yield finding("core", "unknown", fault.message)
        return
    except CloisterError as error:
        yield finding("core", "missing", error.message, error.hint or "cloister node serve, and see core's log")
        return
    if status.paused:
        yield finding("core", "warning", "paused", "cloister node resume, once what it was paused for is over")
    else:
        yield finding("core", "ok", "answers")
    yield fingerprint(config, status.config)
    yield from connection(status)
    yield sandbox(status.sandbox, status.sandbox_age_s)
    yield from _waiting(status)
    yield _revocations(status, config.limits.max_revocation_age_s)
    seen = f"{status.audit_records} records, {status.audit_checkpointed} signed, {status.audit_witnessed} witnessed"
    trouble = status.audit_trouble
    yield finding("audit log", "missing" if trouble else "ok", _TROUBLE.get(trouble, seen), _STATE if trouble else "")


def fingerprint(config: NodeConfig, runs_with: str) -> dict[str, Any]:
    """Whether the node runs with the configuration that this file holds."""
    if config.fingerprint == runs_with:
        return finding("running configuration", "ok", "the node runs with this file")
    detail = f"the node runs with another configuration ({runs_with}) than this file's ({config.fingerprint})"
    return finding("running configuration", "warning", detail, "restart the node to run with this file")


def sandbox(word: str, age_s: float | None) -> dict[str, Any]:
    """What the newest canary found; one older than a day is renewed before the next task."""
    if age_s is None:
        return finding("sandbox", "warning", "no canary yet: the first job runs one", "cloister node canary")
    detail = f"{word} {age_s / 3600:.1f} h ago"
    if word == "held":
        return finding("sandbox", "ok", detail)
    mend = "see deploy/docs/sandbox.md for what each failure means, then: cloister node canary"
    return finding("sandbox", "missing", f"{detail}: no job runs until a canary passes", mend)


def self_test(config: NodeConfig) -> dict[str, Any]:
    """What a small job of nobody's came to, run now."""
    from node.cli.admin import client_for
    from node.ipc.messages import Empty
    from node.ipc.node import SELF_TEST

    try:
        with client_for(config, SELF_TEST) as client:
            answer = client.call(SELF_TEST, Empty(), timeout_s=300.0)
    except UsageFault as fault:
        return finding("self-test", "unknown", fault.message)
    except CloisterError as error:
        return finding("self-test", "missing", error.message, error.hint or "see the lines above, then core's log")
    if answer.failure:
        mend = "deploy/docs/operate.md says what each code means; then: cloister node self-test"
        return finding("self-test", "missing", answer.failure, mend)
    return finding("self-test", "ok", f"a job of nobody's was run in {answer.seconds:.1f} s")


def _waiting(status: Any) -> Iterator[dict[str, Any]]:
    waits, late, aside = status.airlock_waiting, status.airlock_overdue, status.set_aside
    word = f"{waits} files wait for people, {late} of them too long"
    mend = "cloister node airlock list, and review them"
    yield finding("airlock", "warning" if late else "ok", word, mend if late else "")
    if aside:
        yield finding(
            "set aside", "warning", f"{aside} failed too often and are tried no more", "cloister node set-aside"
        )
    else:
        yield finding("set aside", "ok", "nothing")


def _revocations(status: Any, most_s: float) -> dict[str, Any]:
    age, mend = status.revocation_age_s, "the committee signs one at least daily: cloister hub revocations publish"
    if age is None:
        return finding("revocation list", "warning", "none yet: every task is refused", mend)
    word = f"number {status.revocation_number}, {age / 3600:.1f} h old"
    return finding("revocation list", "ok" if age <= most_s else "warning", word, "" if age <= most_s else mend)
