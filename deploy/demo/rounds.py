"""Runs as they happen: what the hub hears, as a bar and a line per hospital and round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deploy.demo.failures import DemoFailed
from deploy.demo.hub import OVER, Hub
from deploy.demo.report import Round, read_rounds
from deploy.demo.show import Phase


@dataclass
class Watcher:
    """Turns the hub's answers about one run into what a person wants to see. `quiet` shows bars alone; `lanes` names
    the bar of a hospital that has another than its own."""

    phase: Phase
    sites: Sequence[str]
    rounds: int
    quiet: bool = False
    lanes: Mapping[str, str] = field(default_factory=dict)
    _announced: set[object] = field(default_factory=set)

    def see(self, run: dict[str, Any]) -> None:
        """Show what is new in the answer of `cloister hub run show`."""
        entries: list[dict[str, Any]] = run.get("rounds") or []
        for entry in entries:
            self._replies(entry)
        for site in self.sites:
            tasks = sum(site in entry[task] for entry in entries for task in ("train", "evaluate"))
            doing = _doing(entries[-1], site, len(self.sites)) if entries else "waiting for the hub"
            self.phase.update(self.lanes.get(site, site), doing, tasks, 2 * self.rounds + 1, passing=True)
        if not self.quiet:
            for done in read_rounds({"rounds": [entry for entry in entries if entry.get("mean")]}):
                if self._is_new(done.number):
                    self.phase.say(describe(done, self.sites), style="bold")

    def _replies(self, entry: dict[str, Any]) -> None:
        """A line for each hospital's answer, off a terminal."""
        for task in ("train", "evaluate"):
            for site, metrics in entry[task].items():
                if self._is_new((entry["round"], task, site)) and not self.quiet:
                    figures = ", ".join(f"{name} {metrics[name]:.3f}" for name in ("loss", "auc") if name in metrics)
                    self.phase.update(site, f"{_name(entry['round'])} {_DONE[task]}: {figures}")

    def _is_new(self, what: object) -> bool:
        if what in self._announced:
            return False
        self._announced.add(what)
        return True


_DONE = {"train": "trained", "evaluate": "evaluated"}


def _doing(newest: dict[str, Any], site: str, sites: int) -> str:
    """What a hospital is at, by the answers that the hub has."""
    name = _name(newest["round"])
    if site in newest["evaluate"]:
        return f"{name} evaluated"
    if newest["round"] == 0 or len(newest["train"]) == sites:
        return f"{name} evaluating"
    return f"{name} trained" if site in newest["train"] else f"{name} training"


def _name(number: int) -> str:
    return "untrained" if number == 0 else f"round {number}"


def follow(hub: Hub, run: str, watcher: Watcher) -> dict[str, Any]:
    """Follow a run to its end; raise `DemoFailed` unless all of its rounds were done."""
    last: dict[str, Any] = {}
    for last in hub.follow(run):
        watcher.see(last)
    if last.get("state") not in OVER:
        raise DemoFailed(f"run {run} did not end", hub.commands.hint, 5)
    done = [entry for entry in read_rounds(last) if entry.number > 0 and entry.auc is not None]
    if len(done) < watcher.rounds:
        raise DemoFailed(f"run {run} ended after {len(done)} rounds: {last.get('detail', '')}", hub.commands.hint)
    return last


def describe(entry: Round, sites: Sequence[str]) -> str:
    """`round 2     9.8 s   loss 0.412   AUC 0.861   (aster 0.87 · birch 0.85 · cedar 0.86)`."""
    each = " · ".join(f"{site} {entry.sites[site]['auc']:.2f}" for site in sites if "auc" in entry.sites.get(site, {}))
    figures = f"loss {entry.loss or 0:.3f}   AUC {entry.auc or 0:.3f}"
    return f"{_name(entry.number):<10} {entry.seconds:5.1f} s   {figures}   ({each})"
