"""`cloister job new`, `build`, `test`: a job made and tried at home, as a hospital would run it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mediator.canonical import from_plain
from mediator.datasets import MAX_MANIFEST_BYTES
from mediator.errors import Denied, Reason, UsageFault
from mediator.grammar import MAX_DOCUMENT_BYTES, check_gpu
from mediator.sizes import MAX_MODEL_FILE_BYTES
from mediator.types import DataPermit, Kind, Resources
from node.cli.files import parse_json, read_bytes
from node.cli.options import Json
from node.cli.output import data, say, show, talk
from node.kit.advice import advice_for
from node.kit.project import TEMPLATES, name_of, new_project

if TYPE_CHECKING:
    from containers.kit_engine import KitEngine, Observed
    from node.kit.trial import Home
    from node.kit.try_job import Step

Engine = Annotated[
    str, typer.Option("--engine", envvar="DOCKER_HOST", help="the container engine's socket; found if not given")
]
# enough for both splits to pass a usual minimum_studies, few enough to be made in a second
_STUDIES = 48
_TEST_SHARE = 3


def new(
    folder: Annotated[Path, typer.Argument(help="the folder to make")],
    template: Annotated[str, typer.Option(help=f"one of {', '.join(TEMPLATES)}")] = "torch",
    name: Annotated[str, typer.Option(help="the project's name; the folder's if not given")] = "",
    as_json: Json = False,
) -> None:
    """Make a project: Containerfile, code that runs, a draft permit, a page that says what to do next."""
    name = name or name_of(folder)
    made = new_project(folder, template, name, datetime.now(UTC))
    if as_json:
        show({"folder": str(folder), "name": name, "template": template, "files": list(made)}, as_json=True)
    else:
        say(f"made {folder} from template {template}: {len(made)} files")
        say(f"next: cloister job build {folder} --tag {name}")


def build(
    folder: Annotated[Path, typer.Argument(help="a project: a folder with a Containerfile")],
    tag: Annotated[str, typer.Option(help="a name for the image on this machine; the folder's if not given")] = "",
    engine: Engine = "",
    as_json: Json = False,
) -> None:
    """Build a project's image without a network, and print its digest: what a permit names."""
    tag = tag or name_of(folder)
    home = home_engine(engine, building=True)
    for line in home.build(folder, tag):
        say(f"  {line}")
    digest = home.digest_of(tag)
    if digest is None:
        raise UsageFault("the engine built an image and does not hold it", hint="is there disk space?")
    if as_json:
        show({"image": digest, "tag": tag}, as_json=True)
    else:
        data.print(digest)


def test(
    image: Annotated[str, typer.Argument(help="an image on this machine, by name or by digest")],
    permit: Annotated[Path, typer.Option(help="the draft permit")] = Path("permit.json"),
    config: Annotated[str, typer.Option(help="the configuration of every task, as a JSON object")] = "",
    rounds: Annotated[int, typer.Option(help="training rounds", min=1, max=100)] = 2,
    model: Annotated[Path | None, typer.Option(help="a safetensors file to begin with; random if not given")] = None,
    like: Annotated[Path | None, typer.Option(help="a published dataset's manifest.json: its shape is taken")] = None,
    studies: Annotated[int, typer.Option(help="at most this many made-up studies", min=2)] = _STUDIES,
    modality: Annotated[str, typer.Option(help="CT, MR or PT")] = "CT",
    gpu: Annotated[list[str] | None, typer.Option(help="a GPU to give, as nvidia-smi -L names it (repeat)")] = None,
    engine: Engine = "",
    as_json: Json = False,
) -> None:
    """Try an image as a hospital would run it, on made-up studies, and say what would leave, or why nothing would."""
    draft = draft_of(permit)
    home = home_engine(engine)
    from node.kit import trial as wired
    from node.kit.trial_inputs import least_config, random_model
    from node.kit.try_job import Trial

    settings = _settings(config) if config else least_config(draft.config)
    if not config and settings:
        say(f"no --config: the least that the draft allows, {json.dumps(settings)}")
    digest = wired.digest_of(home, image)
    given = read_bytes(model, limit=MAX_MODEL_FILE_BYTES) if model else random_model(draft.tensors)
    gpus = _gpus(gpu or [])
    limits = wired.home_limits(draft.resources, len(gpus))
    _say_limits(draft.resources, limits)
    with _bar(as_json) as bar, wired.home(home, limits, bar.progress) as place:
        shape = _shape(draft, like, studies, modality)
        manifest = wired.lay_out(place, shape, draft.project)
        say(f"made up {_data(manifest.counts, shape.modality)}")
        trial = Trial(digest, replace(draft, resources=limits), settings, given, manifest, rounds, gpus)
        steps: list[Step] = []
        try:
            for step in wired.run(place, trial, bar.begin):
                bar.end()
                if not steps:
                    _tell_canary(place)
                steps.append(step)
                _tell(step, place)
        except Denied as denied:
            bar.end()
            say_reasons(denied.reasons)
            if as_json:
                show(_report(digest, place, manifest.counts, steps, denied), as_json=True)
            raise
        answer = _report(digest, place, manifest.counts, steps, None)
    if as_json:
        show(answer, as_json=True)
    if answer["verdict"] != "released":
        raise typer.Exit(3)
    say("every output would be released")


# --- what is asked for --------------------------------------------------------------------------------------


def home_engine(url: str, *, building: bool = False) -> KitEngine:
    try:
        from containers.engine import TIMEOUT_S
        from containers.kit_engine import BUILD_TIMEOUT_S, KitEngine
    except ModuleNotFoundError as error:
        raise UsageFault(
            "this needs the container engine's client", hint="pip install 'cloister[kit]' (the node's install has it)"
        ) from error
    return KitEngine(url or _found_engine(), timeout_s=BUILD_TIMEOUT_S if building else TIMEOUT_S)


def _found_engine() -> str:
    """Docker's socket before Podman's, the user's own before the machine's: as `deploy/lib/engine.sh` looks."""
    mine = Path(f"/run/user/{os.getuid()}")
    places = (
        mine / "docker.sock",
        Path("/run/docker.sock"),
        mine / "podman/podman.sock",
        Path("/run/podman/podman.sock"),
    )
    for place in places:
        if place.is_socket():
            return f"unix://{place}"
    raise UsageFault("no container engine was found", hint="start Docker or Podman, or give --engine unix:///its.sock")


def draft_of(path: Path) -> DataPermit:
    return from_plain(DataPermit, parse_json(path, read_bytes(path, limit=MAX_DOCUMENT_BYTES)))


def _settings(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageFault("--config is not JSON") from error
    if not isinstance(value, dict):
        raise UsageFault("--config is not a JSON object")
    return value


def _gpus(names: list[str]) -> tuple[str, ...]:
    try:
        for name in names:
            check_gpu(name)
    except ValueError as error:  # our own words
        raise UsageFault(str(error), hint="nvidia-smi -L names them: GPU-…") from error
    return tuple(names)


def _shape(draft: DataPermit, like: Path | None, studies: int, modality: str) -> Any:
    from node.kit.synthetic import plain_shape, read_manifest, shape_of

    if modality not in ("CT", "MR", "PT"):
        raise UsageFault("--modality is CT, MR or PT")
    if like is not None:
        manifest = read_manifest(read_bytes(like, limit=MAX_MANIFEST_BYTES))
        if len(manifest.studies) > studies:
            say(f"{like.name} has {len(manifest.studies)} studies: {studies} are made up, in its proportions")
        return shape_of(manifest, studies, modality)  # type: ignore[arg-type]
    # both splits as large as the draft's minimum, if --studies was left as it is
    total = max(studies, _TEST_SHARE * draft.minimum_studies) if studies == _STUDIES else studies
    held_out = total // _TEST_SHARE
    return plain_shape(total - held_out, held_out, dict.fromkeys(draft.columns, "double"), modality)  # type: ignore[arg-type]


# --- what is said -------------------------------------------------------------------------------------------


class _Bar:
    """A progress bar on a terminal; elsewhere each task has its one line when it has ended."""

    def __init__(self, shown: Any) -> None:
        self._shown = shown
        self._task: Any = None

    def begin(self, round_: int, kind: Kind) -> None:
        if self._shown is not None:
            self._task = self._shown.add_task(f"round {round_} {kind.value}", total=1.0)

    def progress(self, _kind: Kind, fraction: float) -> None:
        if self._shown is not None and self._task is not None:
            self._shown.update(self._task, completed=fraction)

    def end(self) -> None:
        if self._shown is not None and self._task is not None:
            self._shown.remove_task(self._task)
            self._task = None


@contextmanager
def _bar(as_json: bool) -> Iterator[_Bar]:
    if as_json or not talk.is_terminal:
        yield _Bar(None)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=talk.console, transient=True) as shown:
        yield _Bar(shown)


def _say_limits(asked: Resources, given: Resources) -> None:
    if given.cpus < asked.cpus:
        say(f"the draft asks for {asked.cpus:g} processors, this machine has {given.cpus:g}")
    if given.gpus < asked.gpus:
        say(f"the draft asks for {asked.gpus} GPUs, {given.gpus} are given (--gpu)")


def _data(counts: Any, modality: str) -> str:
    return (
        f"{counts['train']} {modality} studies to train on, {counts['test']} to evaluate, {counts['instances']} slices"
    )


def _tell_canary(place: Home) -> None:
    canary = place.seen.canary
    if canary is not None:
        say("isolation canary: the sandbox held" if canary.passed else "isolation canary: the sandbox did not hold")


def _tell(step: Step, place: Home) -> None:
    seen = place.seen.observed.get(step.sandbox)
    peak = f", {size(seen.peak_bytes)} at most" if seen and seen.peak_bytes else ""
    say(f"round {step.round} {step.kind.value}: {step.verdict} after {step.seconds:.1f} s ({step.start}{peak})")
    if step.verdict == "released":
        numbers = ", ".join(f"{name} {value:g}" for name, value in sorted(step.metrics.items()))
        say(f"  would leave: {size(step.size_bytes)}; {numbers}")
        if step.norm is not None:
            shortened = ", clipped to the draft's clip_norm" if step.clipped else ""
            say(f"  the update's norm is {step.norm:.4g}{shortened}")
        return
    say_reasons(step.reasons)
    if step.gate == 0 and seen:
        _say_lines(seen)


def _say_lines(seen: Observed) -> None:
    if seen.lines:
        say("  what it printed last (at home alone; a hospital shows it to nobody outside):")
    for line in seen.lines:
        say(f"    {line}")


def say_reasons(reasons: Iterable[Reason]) -> None:
    for reason in reasons:
        say(f"  {reason}")
        say(f"    {advice_for(reason.code)}")


def size(size_bytes: int) -> str:
    for unit, factor in (("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} bytes"


def _report(digest: str, place: Home, counts: Any, steps: list[Step], denied: Denied | None) -> dict[str, Any]:
    canary = place.seen.canary
    verdicts = {step.verdict for step in steps}
    released = denied is None and verdicts == {"released"}
    return {
        "image": digest,
        "verdict": "released" if released else "failed" if "failed" in verdicts else "refused",
        "reasons": [] if denied is None else [_reason(reason) for reason in denied.reasons],
        "canary": None if canary is None else {"passed": canary.passed, "failures": list(canary.failures)},
        "data": dict(counts),
        "tasks": [_step(step, place) for step in steps],
    }


def _step(step: Step, place: Home) -> dict[str, Any]:
    seen = place.seen.observed.get(step.sandbox)
    return {
        "round": step.round, "kind": step.kind.value, "start": step.start, "seconds": round(step.seconds, 3),
        "peak_memory_bytes": seen.peak_bytes if seen and seen.peak_bytes else None,
        "verdict": step.verdict, "gate": step.gate, "reasons": [_reason(reason) for reason in step.reasons],
        "metrics": dict(step.metrics), "size_bytes": step.size_bytes, "update_norm": step.norm,
        "clipped": step.clipped,
    }  # fmt: skip


def _reason(reason: Any) -> dict[str, str]:
    return {"code": reason.code.value, "detail": reason.detail, "mend": advice_for(reason.code)}
