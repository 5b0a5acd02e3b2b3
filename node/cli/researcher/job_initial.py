"""`cloister job init-model`: the untrained model out of a job's own image."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mediator.errors import Denied, UsageFault
from mediator.sizes import MAX_MODEL_FILE_BYTES
from node.cli.files import read_text, replace_file, write_new
from node.cli.options import Json
from node.cli.output import say, show
from node.cli.researcher.job_kit import Engine, draft_of, home_engine, say_reasons, size
from node.kit.initial import MODEL, ordered, specs_of, with_tensors

if TYPE_CHECKING:
    from containers.kit_engine import Initial

# importing torch in a cold container on a busy machine takes half a minute
_WITHIN_S = 300.0


def init_model(
    image: Annotated[str, typer.Argument(help="an image on this machine, by name or by digest")],
    permit: Annotated[Path, typer.Option(help="the draft permit")] = Path("permit.json"),
    out: Annotated[Path, typer.Option(help="the file to write")] = Path("model.safetensors"),
    fill: Annotated[bool, typer.Option("--fill", help="put the model's tensors into the draft permit")] = False,
    engine: Engine = "",
    as_json: Json = False,
) -> None:
    """Have an image make its untrained model, sealed from network and data, and hold it against the draft permit.

    The hub begins with it (hub run submit --model). The image is started as `--initial FOLDER`; every template can.
    """
    draft, text = draft_of(permit), read_text(permit)
    home = home_engine(engine)
    from node.kit import trial as wired

    digest = wired.digest_of(home, image)
    made = home.initial(digest, wired.home_limits(draft.resources, 0), _WITHIN_S, MAX_MODEL_FILE_BYTES)
    _check(made)
    if fill:
        draft = replace(draft, tensors=specs_of(made.files))
    try:
        model = ordered(made.files[MODEL], draft.tensors)
    except Denied as denied:
        say_reasons(denied.reasons)
        raise Denied(denied.reasons, hint="--fill puts the model's own tensors into the draft") from None
    write_new(out, model)  # first: a draft is not filled for a model that nobody gets
    if fill:
        replace_file(permit, with_tensors(text, draft.tensors))
    if as_json:
        show(
            {
                "model": str(out), "sha256": hashlib.sha256(model).hexdigest(), "size_bytes": len(model),
                "image": digest, "permit": str(permit), "filled": fill,
                "tensors": [
                    {"name": each.name, "shape": list(each.shape), "dtype": each.dtype.value} for each in draft.tensors
                ],
            },
            as_json=True,
        )  # fmt: skip
        return
    say(f"wrote {out}: {len(draft.tensors)} tensors, {size(len(model))}, as {permit} names them")
    if fill:
        say(f"put them into {permit}")


def _check(made: Initial) -> None:
    """Raise `UsageFault` unless the image ended well and left a model."""
    if made.status == 0 and MODEL in made.files:
        return
    if made.lines:
        say("what it printed last:")
    for line in made.lines:
        say(f"  {line}")
    why = f"it ended with status {made.status}" if made.status else f"it left no {MODEL}"
    if made.status is None:
        why = f"it did not end within {_WITHIN_S:g} s"
    raise UsageFault(
        f"the image makes no untrained model: {why}",
        hint=f"started as `--initial FOLDER` it writes FOLDER/{MODEL} and ends: see cloister_job/initial.py",
    )
