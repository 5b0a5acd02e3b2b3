"""`cloister node ingest`, `dataset`, `import`: what a data steward does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mediator.errors import Code, Denied, Malformed, Reason, UnsupportedVersion, UsageFault
from mediator.signatures import peek_kind
from mediator.types import Acceptance
from node.cli.admin import client_for, reach
from node.cli.files import read_text
from node.cli.follow_import import files_excluded, follow, tell_end
from node.cli.id_prefix import complete
from node.cli.options import DefacedBy, Json, NodeConfig, SignWith
from node.cli.output import say, show, table
from node.ipc import datasets as words
from node.ipc import documents, imports
from node.ipc.messages import Empty, SignedText

datasets = typer.Typer(no_args_is_help=True)

# a version's files are counted in millions, and an import that is being published goes first
_REMOVAL_S = 600.0


def ingest(
    config: NodeConfig,
    folder: Annotated[Path, typer.Argument(help="a folder of DICOM files, under one of [intake] source_roots")],
    project: Annotated[str, typer.Option(help="the project the data is brought in for")],
    dataset: Annotated[str, typer.Option(help="the dataset this becomes a version of")] = "images",
    profile: Annotated[str, typer.Option(help="the de-identification profile")] = "eucaim",
    clinical: Annotated[
        str | None, typer.Option(help="a CSV file in the folder, with PatientID and StudyInstanceUID")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="a clinical column that may survive: NAME=0:1, or NAME=low|high (repeat)")
    ] = None,
    test_fraction: Annotated[
        float, typer.Option(help="share of labelled patients held out for evaluation", min=0.0, max=0.9)
    ] = 0.2,
    defaced_by: DefacedBy = "",
    key: SignWith = None,
    as_json: Json = False,
) -> None:
    """Bring a folder in: quarantined, de-identified, published as an immutable dataset version, originals destroyed."""
    if clinical is not None and not column:
        raise UsageFault(
            "of a clinical file without --column nothing would be kept", hint="name what may survive: --column NAME=0:1"
        )
    if column and clinical is None:
        raise UsageFault("--column names a column of a file", hint="say which: --clinical FILE")
    request = imports.Ingest(
        project=project,
        dataset=dataset,
        source=os.path.abspath(folder),
        profile=profile,
        clinical=None if clinical is None else os.path.normpath(clinical),
        columns=tuple(_column(text) for text in column or ()),
        test_fraction=test_fraction,
        defaced_by=defaced_by,
    )
    with client_for(reach(config), imports.INGEST, key=key) as client:
        told = follow(client.stream(imports.INGEST, request))
    tell_end(told, as_json=as_json)


@datasets.command("list")
def list_datasets(config: NodeConfig, as_json: Json = False) -> None:
    """Published versions, oldest first."""
    with client_for(reach(config), words.DATASETS) as client:
        items = client.call(words.DATASETS, Empty())
    columns = ("dataset", "version", "project", "published", "studies", "train", "test", "excluded", "withdrawn")
    rows = (
        (
            item.dataset,
            item.dataset_version,
            item.project,
            item.created.date(),
            *(item.counts.get(name, 0) for name in ("studies", "train", "test")),
            _excluded(item),
            item.withdrawn,
        )
        for item in items
    )
    show(list(items), as_json=as_json, table=table(columns, rows))


def _excluded(item: words.DatasetLine) -> dict[str, int]:
    """By reason: studies that were left out, and single files of studies that were not."""
    files = {f"{name} (files)": number for name, number in files_excluded(item.counts).items()}
    return {**item.excluded, **files}


@datasets.command("budget")
def show_budget(config: NodeConfig, as_json: Json = False) -> None:
    """Epsilon spent of each dataset, all its versions: under each permit, and under all together.

    A dataset stands here once a task on it was charged, or a permit with a privacy budget was accepted for it.
    """
    with client_for(reach(config), words.DATASET_BUDGET) as client:
        items = client.call(words.DATASET_BUDGET, Empty())
    columns = ("dataset", "permit", "with noise", "without", "epsilon", "of", "delta")
    rows = (
        (
            item.dataset,
            item.permit or "all permits",
            item.noised,
            item.without_noise,
            f"{item.epsilon:.3g}",
            "no budget" if item.budget is None else f"{item.budget:g}",
            f"{item.delta:g}",
        )
        for item in items
    )
    show(list(items), as_json=as_json, table=table(columns, rows))


@datasets.command("withdraw")
def withdraw(
    config: NodeConfig,
    version: Annotated[str, typer.Argument(help="the version (sha256:…), or the beginning of it")],
    key: SignWith = None,
) -> None:
    """Take a version out of use for good: gate 1 refuses it, containers that see it are ended, its files go."""
    with client_for(reach(config), words.DATASET_WITHDRAW, key=key) as client:
        known = (item.dataset_version for item in client.call(words.DATASETS, Empty()))
        version = complete(version, known, "dataset version", acts=True)
        gone = words.DatasetVersionId(dataset_version=version)
        client.call(words.DATASET_WITHDRAW, gone, timeout_s=_REMOVAL_S)
    say(f"withdrawn {version}")


def import_document(
    config: NodeConfig,
    file: Annotated[Path, typer.Argument(help="a permit, an acceptance, a revocation list or a run order")],
    key: SignWith = None,
) -> None:
    """Take a signed document in from a file, as the hub would send it: for sites that do not wait for the hub.

    The data steward also brings in an acceptance that was signed elsewhere.
    """
    text = read_text(file)
    verb = documents.PERMIT_ACCEPT if _kind(text) == Acceptance.KIND else documents.DOCUMENTS_IMPORT
    with client_for(reach(config), verb, key=key) as client:
        answer = client.call(verb, SignedText(text=text))
    if answer.code is Code.UNSUPPORTED_VERSION:
        raise UnsupportedVersion("this node does not know this version of the document", hint="upgrade the older side")
    if answer.code is Code.MALFORMED:
        raise Malformed(f"{file} is not a document that a node takes")
    if answer.code is not None:
        raise Denied(Reason(answer.code, "the node refused the document"))
    say(f"document {answer.outcome}")


def _kind(text: str) -> str:
    try:
        return peek_kind(text.strip())
    except Malformed:  # the node says what is wrong with it
        return ""


def _column(text: str) -> imports.IngestColumn:
    name, _, rule = text.partition("=")
    if "|" in rule:
        return imports.IngestColumn(name=name, categories=tuple(rule.split("|")))
    try:
        low, high = (float(part) for part in rule.split(":"))
    except ValueError:
        raise UsageFault("--column is NAME=LOW:HIGH for numbers, or NAME=a|b|c for categories") from None
    return imports.IngestColumn(name=name, minimum=low, maximum=high)
