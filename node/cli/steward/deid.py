"""`cloister deid`: gate 0 by itself, on a folder, without a node."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mediator.errors import UsageFault
from mediator.grammar import Ungrammatical, check_identifier, check_tool
from node.cli.options import DefacedBy, Json
from node.cli.output import data, say, show, table, talk
from node.cli.steward import deid_check, deid_key
from node.host.keys import read_raw_key

if TYPE_CHECKING:
    from node.deid.run import FolderRun

app = typer.Typer(no_args_is_help=True)
app.add_typer(deid_key.app, name="key", help="Make and destroy the key pseudonyms are computed with.")
app.command("check")(deid_check.check)

Profile = Annotated[str, typer.Option(help="basic, eucaim, eucaim-v5, pseudonymise, or the path of a site's TOML file")]
KeyFile = Annotated[Path, typer.Option("--key", help="32 raw bytes, mode 0600 (cloister deid key new FILE)")]


@app.callback()
def _group() -> None:
    """De-identify a folder, see what would happen to a file, check another tool's work."""


@app.command("run")
def run(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="a folder of DICOM files, at any depth")],
    output: Annotated[
        Path, typer.Argument(metavar="DST", help="the folder to write; DST.review and reports beside it")
    ],
    profile: Profile,
    site: Annotated[str, typer.Option(help="the site's id")],
    key: KeyFile,
    project: Annotated[
        str, typer.Option(help="the project's id (not for pseudonymise: its secret is the site's)")
    ] = "",
    jobs: Annotated[int, typer.Option(help="worker processes", min=1, max=64)] = 1,
    ocr: Annotated[
        Literal["auto", "every-frame", "off"],
        typer.Option(help="looking at pixels; off: what does not say that it has no text goes to review"),
    ] = "auto",
    defaced_by: DefacedBy = "",
    source_index: Annotated[
        Path | None, typer.Option(help="a new file (0600) that says which path each src#0001 is")
    ] = None,
    as_json: Json = False,
) -> None:
    """De-identify every file of SRC into DST; what a person must look at into DST.review.

    DST.report.jsonl has a line for each file. Exit code 0 also when single files were refused (they are listed), 3 when
    nothing could be written, 1 when a file met a defect of ours: it waits in SRC (`our_defect`), the others are done.
    Running it again does no harm: what is there already and the same stays.
    """
    from node.deid.run import FolderRun

    target = Path(os.path.normpath(output.absolute()))
    order = FolderRun(str(source.absolute()), target, profile, b"", project, site, ocr, defaced_by)
    carry_out(order, key, jobs, source_index, as_json=as_json)


def carry_out(order: FolderRun, key: Path, jobs: int, source_index: Path | None, *, as_json: bool) -> None:
    """A run, from its checks to its exit code; the order's key is read from `key` when the rest is known to be well."""
    from node.cli.steward.deid_progress import progress
    from node.deid.deidentify_folder import check_rooms, check_same_pseudonyms, deidentify_folder, write_source_index
    from node.deid.pipeline import Result
    from node.deid.processes import WorkerProcesses
    from node.deid.run import list_files
    from node.deid.worker_settings import table_of

    check_rooms(Path(order.source), order.sink)
    compiled = table_of(order.profile)
    _identifiers(order.site, order.project, order.defaced_by, needed=compiled.scope == "project")
    order = replace(order, key=read_raw_key(key))
    about = order.about(compiled) | {"jobs": jobs}
    check_same_pseudonyms(order.sink, about)
    files = list_files(order.source)
    if source_index is not None:
        write_source_index(source_index, files)
    summary: dict[str, Any] = {}
    with (
        order.sink as sink,
        WorkerProcesses(order.settings(compiled), jobs) as workers,
        progress(workers, talk) as bars,
    ):
        bar = bars.add_task("de-identifying", total=len(files))
        begun = time.monotonic()
        for event in deidentify_folder(files, sink, workers, about):
            if isinstance(event, Result):
                bars.advance(bar)
            else:
                summary = event | {"seconds": round(time.monotonic() - begun, 2)}
    _end(summary, as_json=as_json)


def _end(summary: dict[str, Any], *, as_json: bool) -> None:
    """What a run came to; and its exit code, when that is not 0."""
    if not as_json:  # each series is in DST.summary.json
        summary["series_findings"] = len(summary["series_findings"])
    show(summary, as_json=as_json)
    say(f"{summary['written']} written, {summary['review']} to review, {summary['refused']} refused")
    if defects := summary["refused_reasons"].get("our_defect", 0):
        said = "file met a defect" if defects == 1 else "files met a defect"
        say(f"error: {defects} {said} in cloister and wait in SRC; the others are done")
        say("hint: please report the lines that say our_defect (class and place, nothing of a file); run it again then")
        raise typer.Exit(1)
    if not summary["written"] and not summary["review"]:
        say("error: nothing could be written")
        say("hint: the report beside DST lists each file with its reason")
        raise typer.Exit(3)


@app.command("explain")
def explain(
    file: Annotated[Path, typer.Argument(help="a DICOM file")],
    profile: Profile = "eucaim",
    values: Annotated[
        bool, typer.Option("--values", help="show the file's values too: they identify a patient")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say for each element of a file what will happen to it and which rule says so. Nothing is written."""
    from node.deid.explain import explain_file
    from node.deid.worker_settings import table_of

    verdict, lines = explain_file(file, table_of(profile), values=values)
    if as_json:
        show({"verdict": verdict, "elements": [line.plain(values) for line in lines]}, as_json=True)
    else:
        for line in lines:
            data.print(line.text(values))
    say(f"the file: {verdict}")


@app.command("profiles")
def profiles(
    name: Annotated[str | None, typer.Argument(help="a profile, or a site's own file: told rule by rule")] = None,
    options: Annotated[
        bool, typer.Option("--options", help="the options of PS3.15 E.3 a site's file may take")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the profiles, or tell one of them rule by rule (Markdown)."""
    from mediator.deid.statement import OPTION_CODES
    from node.deid.describe import describe
    from node.deid.profiles import load_profile, profile_names, profile_text, standard
    from node.deid.worker_settings import table_of

    if options:
        rows = [{"option": option, "code": code, "meaning": text} for option, (code, text) in OPTION_CODES.items()]
        show(rows, as_json=as_json, table=table(("option", "code", "meaning"), [tuple(row.values()) for row in rows]))
    elif name is None:
        rows = [wiring_row(load_profile(each), profile_text(each)) for each in profile_names()]
        columns = ("profile", "version", "scope", "dates", "title")
        show(rows, as_json=as_json, table=table(columns, [tuple(row[c] for c in columns) for row in rows]))
    else:
        compiled = table_of(name)
        counts = Counter(rule.action.value for rule in compiled.rules.values())
        if as_json:
            show({"profile": compiled.profile, "fingerprint": compiled.fingerprint, "rules": counts}, as_json=True)
        else:
            data.print(describe(compiled, standard()), end="")


def wiring_row(compiled: Any, text: str) -> dict[str, Any]:
    """One profile as the list shows it."""
    title = next(line.partition('"')[2].rstrip('"') for line in text.splitlines() if line.startswith("title"))
    return {
        "profile": compiled.profile,
        "version": compiled.profile_version,
        "scope": compiled.scope,
        "dates": compiled.dates,
        "options": sorted(compiled.options),
        "codes": [code for code, _ in compiled.codes],
        "fingerprint": compiled.fingerprint,
        "title": title,
    }


@app.command("verify")
def verify(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="the originals")],
    output: Annotated[Path, typer.Argument(metavar="DST", help="what any tool made of them")],
    profile: Annotated[str, typer.Option(help="what should have been removed or replaced")] = "basic",
    key: Annotated[
        Path | None, typer.Option("--key", help="the key DST was made with: dates are compared in every file then")
    ] = None,
    project: Annotated[str, typer.Option(help="with --key: the project's id")] = "",
    site: Annotated[str, typer.Option(help="with --key: the site's id")] = "",
    as_json: Json = False,
) -> None:
    """Search DST for everything of SRC that the profile removes or replaces. Exit code 3 when something is left.

    Works on the output of any tool. An element whose value the profile itself would keep is no finding. Dates are
    compared one by one where identical pixels, or our own key, say which original a file was made from.
    """
    from node.deid.source_folder import look, walk
    from node.deid.verify import verify_folders
    from node.deid.worker_settings import pseudonyms, table_of

    for folder in (source, output):
        if not os.path.isdir(folder) or not os.access(folder, os.R_OK | os.X_OK):  # False where one may not look
            raise UsageFault("SRC and DST are folders that can be read")
    one, other = source.resolve(), output.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise UsageFault("SRC and DST must not lie inside each other", hint="DST is what was made of SRC")
    look(str(source.absolute()), name="SRC")
    look(str(output.absolute()), name="DST")  # nothing found in no file would be no answer
    if key is None and (project or site):
        raise UsageFault("--project and --site belong to --key", hint="without the key they change nothing")
    table, keyed = table_of(profile), None
    if key is not None:
        _identifiers(site, project, needed=table.scope == "project")
        keyed = pseudonyms(table, read_raw_key(key), project, site)
    report = verify_folders(str(source.absolute()), str(output.absolute()), table, walk, keyed)
    told = report.plain()
    if not as_json:  # a person reads where things are left; each file is in --json
        del told["findings"]
    show(told, as_json=as_json)
    if report.findings:
        say(f"error: {report.damaged} of {report.outputs} files hold something that should have gone")
    if report.made_with_key is False:  # what was not compared is not clean
        say(f"error: this key, project and site made none of these {report.outputs} files of these originals")
        say("hint: DST.summary.json says which made them; without --key, pixels alone say what is compared")
    if report.findings or report.made_with_key is False:
        raise typer.Exit(3)
    say(f"nothing found in {report.outputs} files")


def _identifiers(site: str, project: str, defaced_by: str = "", *, needed: bool) -> None:
    try:
        check_identifier(site, "--site")
        if needed or project:
            check_identifier(project, "--project")
        if defaced_by:
            check_tool(defaced_by, "--defaced-by")
    except Ungrammatical as error:
        raise UsageFault(str(error), hint=error.hint) from None
