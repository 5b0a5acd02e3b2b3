"""Runs as they happen: what the hub hears, as a bar and a line per hospital and round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from deploy.demo.failures import DemoFailed
from deploy.demo.hub import OVER, Hub
from deploy.demo.report import Round, read_rounds
from deploy.demo.show import Phase


@dataclass
class Watcher:
    """Turns the hub's answers about one run into what a person wants to see. `quiet` shows bars alone."""

    phase: Phase
    sites: Sequence[str]
    rounds: int
    quiet: bool = False
    _announced: set[int] = field(default_factory=set)

    def see(self, run: dict[str, Any]) -> None:
        """Show what is new in the answer of `cloister hub run show`."""
        entries = run.get("rounds") or []
        for site in self.sites:
            tasks = sum(site in (entry.get(task) or {}) for entry in entries for task in ("train", "evaluate"))
            self.phase.update(site, self._note(entries, site), tasks, 2 * self.rounds + 1)
        if not self.quiet:
            for entry in read_rounds({"rounds": [entry for entry in entries if entry.get("mean")]}):
                if entry.number not in self._announced:
                    self._announced.add(entry.number)
                    self.phase.say(describe(entry), style="")

    def _note(self, entries: list[dict[str, Any]], site: str) -> str:
        if not entries:
            return "waiting"
        newest = entries[-1]
        number = newest["round"]
        if site in (newest.get("evaluate") or {}):
            return "untrained model evaluated" if number == 0 else f"round {number} evaluated"
        if number == 0:
            return "evaluating the untrained model"
        if len(newest.get("train") or {}) == len(self.sites):
            return f"round {number} evaluating"
        return f"round {number} trained" if site in (newest.get("train") or {}) else f"round {number} training"


def follow(hub: Hub, run: str, watcher: Watcher) -> dict[str, Any]:
    """Follow a run to its end; raise `DemoFailed` unless all of its rounds were done."""
    last: dict[str, Any] = {}
    for last in hub.follow(run):
        watcher.see(last)
    if last.get("state") not in OVER:
        raise DemoFailed(f"run {run} did not end", hub.programs.hint, 5)
    done = [entry for entry in read_rounds(last) if entry.number > 0 and entry.auc is not None]
    if len(done) < watcher.rounds:
        raise DemoFailed(f"run {run} ended after {len(done)} rounds: {last.get('detail', '')}", hub.programs.hint)
    return last


def describe(entry: Round) -> str:
    """`round 2    9.8 s   loss 0.412   AUC 0.861   (aster 0.87 · birch 0.85 · cedar 0.86)`."""
    name = "untrained" if entry.number == 0 else f"round {entry.number}"
    sites = " · ".join(f"{site} {figures.get('auc', float('nan')):.2f}" for site, figures in entry.sites.items())
    return f"{name:<10} {entry.seconds:5.1f} s   loss {entry.loss or 0:.3f}   AUC {entry.auc or 0:.3f}   ({sites})"
