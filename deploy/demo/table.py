"""The tables at the end of the demo."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from deploy.demo.report import REFUSALS, Figures, Report, Round
from deploy.demo.show import DONE, FAILED


def tables(report: Report) -> Iterator[RenderableType]:
    """Everything the demo has to show, in the order a newcomer asks for it."""
    yield data_in(report)
    yield learning(report)
    yield what_left(report)
    yield refusals(report)
    yield time_taken(report)
    yield from verdict(report)


def data_in(report: Report) -> Table:
    """Studies in, published and excluded, with the reasons."""
    table = _table("what went in", "hospital")
    for name in ("studies in", "published", "instances", "kept for testing", "identifiers planted"):
        table.add_column(name, justify="right")
    table.add_column("not published, and why")
    for each in report.hospitals.values():
        table.add_row(
            each.name, str(each.studies_in), str(each.studies_published), str(each.instances), str(each.held_out),
            str(each.planted), reasons(each),
        )  # fmt: skip
    return table


def learning(report: Report) -> Table:
    """Loss and AUC per round, over all and per hospital; then what each hospital reaches alone."""
    table = _table("what was learnt", "round")
    for name in ("seconds", "loss", "AUC", *(f"{site} loss / AUC" for site in report.hospitals)):
        table.add_column(name, justify="right")
    for entry in report.rounds:
        name = "untrained" if entry.number == 0 else f"round {entry.number}"
        last = entry is report.rounds[-1]
        table.add_row(
            name, "" if entry.number == 0 else f"{entry.seconds:.1f}", _number(entry.loss), _number(entry.auc),
            *(_pair(entry, site) for site in report.hospitals), style="bold" if last else "", end_section=last,
        )  # fmt: skip
    table.add_row(
        "alone, on all", "", "", "", *(_number(each.auc_local_only) for each in report.hospitals.values()), style="dim"
    )
    return table


def what_left(report: Report) -> Table:
    """Bytes that left each node, and whether its log proves it."""
    table = _table("what left", "hospital")
    for name in ("alone, own AUC", "together, own AUC", "bytes that left", "audit records"):
        table.add_column(name, justify="right")
    table.add_column("audit verify")
    last = report.trained[-1] if report.trained else None
    for each in report.hospitals.values():
        federated = last.sites.get(each.name, {}).get("auc") if last else None
        table.add_row(
            each.name, _number(each.auc_at_home), _number(federated), f"{each.bytes_out:,}".replace(",", " "),
            str(each.audit_records), _mark(each.audit_ok, "whole, signed, witnessed", "BROKEN"),
        )  # fmt: skip
    return table


def refusals(report: Report) -> Table:
    """The closing act: who tried what, and the proof that it was refused."""
    table = _table("what was refused", "attempt")
    table.add_column("")
    table.add_column("proof")
    for name, attack in REFUSALS.items():
        proof = report.evidence.get(name, {})
        table.add_row(attack.title, _mark(report.refusals[name], "refused", "NOT REFUSED"), describe(proof))
    return table


def time_taken(report: Report) -> Table:
    """Each step's seconds, and what the demo, its commands, hub and nodes computed meanwhile."""
    table = _table("where the time went", "step")
    for name in ("seconds", "processor seconds"):
        table.add_column(name, justify="right")
    for step, seconds in report.phases.items():
        used = report.processor.get(step)
        table.add_row(step, f"{seconds:.1f}", "" if used is None else f"{used:.1f}")
    total = f"{sum(report.processor.values()):.1f}"
    table.add_row("together, containers not counted", f"{report.seconds_total:.1f}", total, style="bold")
    return table


def verdict(report: Report) -> Iterator[Text]:
    """The last lines: all well, or every reason why not."""
    search = report.search
    yield Text.assemble(
        _mark(search.found == 0, "", ""),
        f"{search.found} of {search.planted} planted identifiers found in {search.files} files outside source/",
        (f"  (the same search finds {search.found_in_source} inside it)", "dim"),
    )
    destroyed = all(each.quarantine_files == 0 for each in report.hospitals.values())
    yield Text.assemble(_mark(destroyed, "", ""), "quarantine empty at every hospital, its destruction audited")
    for words in report.failures():
        yield Text.assemble((f"{FAILED} ", "bold red"), words)


def reasons(hospital: Figures) -> str:
    """`3 reason, 1 other reason`, the most frequent first."""
    ordered = sorted(hospital.excluded.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in ordered) or "none"


def describe(proof: dict[str, object]) -> str:
    """One line of evidence."""
    if "tls_alert" in proof:
        return f"TLS alert {proof['tls_alert']}"
    if "audit_sequence" in proof:
        return f"{proof['site']}: audit record {proof['audit_sequence']} says {proof['code']}"
    return str(proof.get("why", "no evidence"))


def _table(title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(first)
    return table


def _pair(entry: Round, site: str) -> str:
    figures = entry.sites.get(site, {})
    return f"{_number(figures.get('loss'))} / {_number(figures.get('auc'))}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _mark(good: bool, yes: str, no: str) -> Text:
    return Text(f"{DONE} {yes}", style="green") if good else Text(f"{FAILED} {no}", style="bold red")
