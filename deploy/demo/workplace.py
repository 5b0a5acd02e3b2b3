"""The demo's folder: where it may lie, who owns what in it, and how it is cleared for the next run.

As root every process of every node runs under its own uid. The demo uses bare numbers for them, without entries in
/etc/passwd, so that nothing is left behind on the machine.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from deploy.demo.failures import DemoFailed
from deploy.driver.roles import ROLES

SITES = ("aster", "birch", "cedar")
MARKER = ".cloister-demo"
REPORT, PAGE, SVG, PNG = "demo-report.json", "report.html", "demo.svg", "demo.png"
# above Debian's dynamic users (100-999), people (1000-59999) and below systemd's DynamicUser (61184-65519)
UID_BASE = 61000
FALLBACK = Path("/var/tmp/cloister-demo")  # noqa: S108  the one folder on every machine that all users may enter


@dataclass(frozen=True)
class Account:
    """A user of the operating system, by number. `None` for all: a plain user runs everything as themselves."""

    uid: int | None


class Workplace:
    """The folders and accounts of one demo. Paths are absolute."""

    def __init__(self, root: Path, *, as_root: bool, uid_base: int = UID_BASE) -> None:
        self.root = root
        self.as_root = as_root
        self.uid_base = uid_base
        self.source = root / "source"
        self.hub = root / "hub"
        self.committee = root / "committee"
        self.researcher = root / "researcher"
        self.post = root / "post"
        self.logs = root / "logs"
        self.report = root / REPORT
        self.page = root / PAGE
        self.svg = root / SVG
        self.png = root / PNG
        self._lock: IO[str] | None = None

    def node(self, site: str) -> Path:
        return self.root / "nodes" / site

    def steward(self, site: str) -> Path:
        return self.root / "stewards" / site

    def _account(self, offset: int) -> Account:
        return Account(self.uid_base + offset if self.as_root else None)

    @property
    def hub_account(self) -> Account:
        return self._account(0)

    @property
    def committee_account(self) -> Account:
        return self._account(1)

    @property
    def researcher_account(self) -> Account:
        return self._account(2)

    def node_account(self, site: str, role: str) -> Account:
        return self._account(10 * (SITES.index(site) + 1) + ROLES.index(role))

    def search_roots(self) -> list[Path]:
        """Every folder that may hold no identifier: all but the hospitals' originals."""
        return sorted(path for path in self.root.iterdir() if path.is_dir() and path != self.source)

    def clear_and_make(self) -> None:
        """An empty demo folder with everybody's place in it; what an earlier demo left is deleted.

        Raises `DemoFailed` for a folder that holds anything and is no demo's.
        """
        check_vacant(self.root)
        self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
        (self.root / MARKER).touch()
        self._hold()
        for entry in self.root.iterdir():
            if entry.name == MARKER:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        for folder in (self.source, self.root / "nodes", self.root / "stewards", self.post, self.logs):
            folder.mkdir(mode=0o755)
        for site in SITES:
            self.node(site).mkdir(mode=0o755)
            self._private(self.steward(site), Account(None))
        self._private(self.hub, self.hub_account)
        self._private(self.committee, self.committee_account)
        self._private(self.researcher, self.researcher_account)

    def _private(self, folder: Path, owner: Account) -> None:
        folder.mkdir(mode=0o700)
        self.give(folder, owner)

    def give(self, path: Path, owner: Account) -> Path:
        """Hand a file or folder to its owner; as a plain user everything is theirs already."""
        if owner.uid is not None:
            os.chown(path, owner.uid, owner.uid)
        return path

    def _hold(self) -> None:
        """Two demos in one folder would tear down each other's; the second is told so."""
        self._lock = (self.root / MARKER).open("r+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise DemoFailed(f"another demo is running in {self.root}", "wait for it, or use --work DIR", 5) from error

    def release(self) -> None:
        """Let the next demo have the folder (the end of the process does so too)."""
        if self._lock:
            self._lock.close()
            self._lock = None


def check_vacant(root: Path) -> None:
    """Raises `DemoFailed` for a folder that holds anything and is no demo's: its content would be deleted."""
    if root.is_dir() and any(root.iterdir()) and not (root / MARKER).is_file():
        raise DemoFailed(f"{root} is not empty and not a demo's folder", "choose another one with --work DIR", 2)


def choose_root(wanted: Path | None, repository: Path, *, as_root: bool) -> tuple[Path, str]:
    """Where the demo works, and a line that says why it is not the usual place (empty if it is).

    As root the nodes run as other users, who must be able to walk to their folder. A clone under /root is closed to
    them: then a folder that every user can reach serves instead, unless the person asked for one by name.
    """
    root = (wanted or repository / "demo-work").absolute()
    closed = next((folder for folder in _ancestors(root) if not _open_to_all(folder)), None) if as_root else None
    if closed is None:
        return root, ""
    if wanted is not None:
        raise DemoFailed(
            f"the nodes' own users cannot enter {closed}", f"chmod o+x {closed}, or use --work {FALLBACK}", 2
        )
    return FALLBACK, f"{closed} is closed to the nodes' own users: working in {FALLBACK} instead"


def _ancestors(path: Path) -> Iterator[Path]:
    """The folders on the way to `path` that exist, itself included."""
    return (folder for folder in (path, *path.parents) if folder.exists())


def _open_to_all(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_IXOTH)


def write_json(path: Path, value: object) -> Path:
    """Plain JSON for a person to read, readable by all parties of the demo."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
