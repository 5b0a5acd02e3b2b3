"""`cloister deid check`: gaps and strangers in series, and pictures that are there twice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mediator.errors import UsageFault
from node.cli.options import Json
from node.cli.output import data, say, show
from node.host.keys import read_raw_key


def check(
    folder: Annotated[Path, typer.Argument(help="a folder of DICOM files, de-identified or not")],
    pixels: Annotated[bool, typer.Option(help="decode every picture to find copies in any transfer syntax")] = True,
    key: Annotated[
        Path | None, typer.Option("--key", help="32 raw bytes: with --seen, copies are found across projects")
    ] = None,
    seen: Annotated[
        Path | None, typer.Option(help="a file of keyed hashes of earlier pictures; those of this folder are added")
    ] = None,
    source_index: Annotated[
        Path | None, typer.Option(help="a new file (0600) that says which path each src#0001 is")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what is wrong with the series of FOLDER, and which pictures are copies. Changes nothing.

    Findings: missing_slices, doubled_slices, mixed_series, unreadable_syntax, unreadable_header, duplicate_pixels,
    pixels_seen_before, pixels_not_decoded. The hashes are keyed: without the key nobody can test a picture for them.
    """
    from node.deid.check import check_folder, summary
    from node.deid.deidentify_folder import write_source_index
    from node.deid.run import list_files

    if (key is None) != (seen is None):
        raise UsageFault("--key and --seen belong together", hint="neither finds copies inside FOLDER alone")
    secret = read_raw_key(key) if key is not None else None
    if seen is not None:
        _check_store(seen)
    files = list_files(str(folder.absolute()))
    if source_index is not None:
        write_source_index(source_index, files)
    found = list(check_folder(folder, files, pixels=pixels, key=secret, store=seen))
    if as_json:
        show({**summary(files, found), "details": [one.line() for one in found]}, as_json=True)
    else:
        for one in found:
            many = f" and {len(one.sources) - 1} more" if len(one.sources) > 1 else ""
            of = f" in {one.series}" if one.series else f" of {one.same_as}" if one.same_as else ""
            data.print(f"{one.finding}{of}: {one.sources[0]}{many}")
    say(f"{len(files)} files, {len(found)} findings")


def _check_store(path: Path) -> None:
    """Before a picture is decoded: what was seen must be readable, and what is seen now can be written down."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UsageFault("--seen is a file, not a link or a folder")
    if not os.access(path if path.exists() else path.absolute().parent, os.R_OK | os.W_OK):
        raise UsageFault("--seen cannot be read and written by this user", hint="it is made where it is not there yet")
