"""What people ask of `hub.db`, read with SQLite alone: no question waits until SQLAlchemy is loaded.

Everything here is one statement or a few within one moment of the database, and writes nothing. The tables are
`federation.hub.tables`'; `tests/federation/test_overview.py` holds every column named here against them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from federation import protocol
from federation.revisions import newest
from mediator.errors import Code, IntegrityBroken, NotNow, UsageFault

_MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_S = 10.0
_EVENT = "sequence, time, actor, action, object, verdict, code"
_RUN = (
    "run, permit || '@' || permit_version AS permit, state, detail, attempt, completed_round, rounds AS rounds_ordered,"
    " minimum_sites, model_sha256, submitted, updated"
)
# an export, as the hub's records name it
EXPORT = "run_export"
ALARM = "alarm"


class Overview:
    """The hub's record, sites, alarms and runs. Every method raises `NotNow` when the database does not answer and
    `IntegrityBroken` when its file is damaged."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def is_current(self) -> bool:
        """Whether the database is of this version; any other is for `Database.upgrade` to look at."""
        with self._read() as reader:
            if not reader.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
                return False
            found = [row["version_num"] for row in reader.execute("SELECT version_num FROM alembic_version")]
        return found == [newest(_MIGRATIONS)]

    def events(self, newest: int) -> list[dict[str, Any]]:
        """The `newest` lines of the hub's own record, oldest first; all of them for 0."""
        with self._read() as reader:
            query = f"SELECT {_EVENT} FROM events ORDER BY sequence DESC LIMIT ?"  # noqa: S608 - our own columns
            return _plain(reader.execute(query, (newest or -1,)))[::-1]

    def nodes(self) -> list[dict[str, Any]]:
        """Every site ever enrolled, when its newest certificate ends, and how far its audit log is witnessed."""
        with self._read() as reader:
            rows = _plain(
                reader.execute(
                    "SELECT site, state, enrolled, connected, protocol,"
                    " (SELECT max(expires) FROM certificates WHERE certificates.site = sites.site)"
                    " AS certificate_expires, checkpoint_refused AS witness_refused, inventory"
                    " FROM sites ORDER BY site"
                )
            )
            witnessed = {
                row["site"]: (row["epoch"], row["size"])
                for row in reader.execute(
                    "SELECT site, epoch, max(size) AS size FROM checkpoints GROUP BY site, epoch ORDER BY epoch"
                )
            }
        for row in rows:
            row["inventory"] = json.loads(row["inventory"]) if row["inventory"] else None
            row["log_epoch"], row["witnessed_records"] = witnessed.get(row["site"], (0, 0))
        return rows

    def alarms(self) -> list[dict[str, Any]]:
        """Sites whose certificate may be in other hands; then those that speak another protocol than this hub."""
        return [*self.raised(), *self.apart()]

    def raised(self, site: str | None = None) -> list[dict[str, Any]]:
        """Alarms about certificates since each site was last enrolled, oldest first; all of them, or a site's."""
        with self._read() as reader:
            return _plain(
                reader.execute(
                    "SELECT sequence, time, site, code, object AS about FROM events JOIN sites ON site = actor"
                    " WHERE verdict = ? AND time >= enrolled AND site = coalesce(?, site) ORDER BY sequence",
                    (ALARM, site),
                )
            )

    def apart(self) -> list[dict[str, Any]]:
        """Active sites that this hub does nothing with, because they speak a protocol too far from its own."""
        with self._read() as reader:
            speaking = reader.execute(
                "SELECT site, coalesce(connected, enrolled) AS time, protocol FROM sites"
                " WHERE state = 'active' AND protocol IS NOT NULL ORDER BY site"
            )
            return [
                {
                    "sequence": 0,
                    "time": row["time"],
                    "site": row["site"],
                    "code": Code.UNSUPPORTED_VERSION,
                    "about": protocol.words(hub=protocol.PROTOCOL, node=row["protocol"]),
                }
                for row in speaking
                if not protocol.together(protocol.PROTOCOL, row["protocol"])
            ]

    def runs(self) -> list[dict[str, Any]]:
        """Every run in one line each, newest first."""
        with self._read() as reader:
            return _plain(reader.execute(f"SELECT {_RUN} FROM runs ORDER BY submitted DESC"))  # noqa: S608

    def history(self, run: str) -> dict[str, Any]:
        """A run in full: its summary, its attempts, and per round the metrics of each site, their mean weighted by
        `num-examples`, seconds, and every refusal. Readable at any moment while the run goes on."""
        with self._read() as reader:
            found = _plain(reader.execute(f"SELECT {_RUN} FROM runs WHERE run = ?", (run,)))  # noqa: S608
            if not found:
                raise UsageFault("no such run")
            attempts = reader.execute(
                "SELECT attempt, reason, opened FROM attempts WHERE run = ? ORDER BY attempt", (run,)
            )
            exports = reader.execute(
                'SELECT time, actor AS "by", object, verdict, code FROM events'
                " WHERE action = ? AND substr(object, 1, ?) = ? ORDER BY sequence",
                (EXPORT, len(run) + 1, f"{run}/"),
            )
            return found[0] | {
                "attempts": _plain(attempts),
                "rounds": rounds_of(reader, run),
                "exports": _plain(exports),
            }

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        """One moment of the database."""
        try:
            # not `ro`: who reads a WAL writes its index
            found = sqlite3.connect(f"{self._path.as_uri()}?mode=rw", uri=True, timeout=_BUSY_S, isolation_level=None)
            with closing(found) as reader:
                reader.row_factory = sqlite3.Row
                reader.execute("BEGIN")
                yield reader
        except sqlite3.OperationalError:
            raise NotNow(
                "the hub's database does not answer", hint="is the disk full, or another process writing?"
            ) from None
        except sqlite3.DatabaseError as error:
            if type(error) is sqlite3.DatabaseError:
                raise IntegrityBroken("the hub's database file is damaged", hint="restore the newest backup") from None
            raise


def _plain(rows: sqlite3.Cursor) -> list[dict[str, Any]]:
    return [dict(row) for row in rows]


def rounds_of(reader: sqlite3.Connection, run: str) -> list[dict[str, Any]]:
    """The rounds of a run as plain JSON, in order, within the reader's transaction.

    `missing` names, for each task that has ended, the sites it went on without; why is in `refusals`.
    """
    rounds: dict[int, dict[str, Any]] = {}
    for row in _named(reader, "SELECT * FROM rounds WHERE run = ? ORDER BY round", run):
        entry = rounds.setdefault(row["round"], _empty(row["round"]))
        if row["finished"] is not None:
            entry["missing"][row["task"]] = []
        entry[f"{row['task']}_seconds"] = row["seconds"]
        mean = json.loads(row["metrics"]) if row["metrics"] else None
        if row["task"] == "evaluate":
            entry["model_sha256"], entry["mean"] = row["model_sha256"], mean
        elif mean is not None:
            entry["train_mean"] = mean
        if row["seconds"] is not None:
            entry["seconds"] = round((entry["seconds"] or 0.0) + row["seconds"], 3)
    for reply in _named(reader, "SELECT * FROM replies WHERE run = ? ORDER BY sequence", run):
        _add_reply(rounds[reply["round"]], reply)
    for entry in rounds.values():
        for task, missing in entry["missing"].items():
            others = {each["site"] for each in entry["refusals"] if each["task"] == task} - entry[task].keys()
            missing += sorted(others)
    return [rounds[number] for number in sorted(rounds)]


def _named(reader: sqlite3.Connection, query: str, run: str) -> sqlite3.Cursor:
    """Rows by the names of their columns, whatever the connection gives its other readers."""
    cursor = reader.cursor()
    cursor.row_factory = sqlite3.Row
    return cursor.execute(query, (run,))


def _add_reply(entry: dict[str, Any], reply: sqlite3.Row) -> None:
    if reply["outcome"] == "used":
        entry[reply["task"]][reply["site"]] = json.loads(reply["metrics"])
        sent = entry.setdefault("bytes", {})
        sent[reply["site"]] = sent.get(reply["site"], 0) + reply["size_bytes"]
        return
    told = {name: reply[name] for name in ("site", "task", "outcome", "code", "attempt")}
    entry["refusals"].append(told | {"time": reply["received"]})


def _empty(number: int) -> dict[str, Any]:
    return {"round": number, "seconds": None, "mean": None, "train": {}, "evaluate": {}, "missing": {}, "refusals": []}
