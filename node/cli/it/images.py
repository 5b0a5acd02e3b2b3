"""`cloister node image`: images come in by digest, are looked at, and are let run here by a named person."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mediator import canonical
from mediator.errors import Code, Denied, Reason, UsageFault
from mediator.grammar import HEX256, check_digest
from mediator.images import ImageFacts, read_facts
from node.cli.admin import client_for, load, reach
from node.cli.id_prefix import complete
from node.cli.it import image_view
from node.cli.it.image_differences import differences, lineage_of
from node.cli.options import Json, NodeConfig, SignWith
from node.cli.output import data, plain, say, show, talk
from node.ipc import images as words
from node.ipc.messages import Empty

if TYPE_CHECKING:
    from rich.progress import Progress

    from node.host.config import NodeConfig as Configuration
    from node.ipc.channel import Client

_HEX = re.compile(HEX256)
app = typer.Typer(no_args_is_help=True)

Image = Annotated[
    str,
    typer.Argument(help="the image by digest (sha256:…), or the beginning of a listed one's; never by tag"),
]
By = Annotated[str, typer.Option("--by", help="who decides: a person's identifier in this hospital, as a.silva")]
Lineage = Annotated[
    str | None, typer.Option("--lineage", help="what it is a version of; by itself: its name without the tag")
]


@app.command("add")
def add(
    config: NodeConfig,
    file: Annotated[
        Path | None, typer.Argument(help="`docker save`'s output, or an OCI layout (tar file or folder)")
    ] = None,
    from_engine: Annotated[
        str | None, typer.Option("--from-engine", help="instead of a file: an image the engine holds (sha256:…)")
    ] = None,
    lineage: Lineage = None,
    key: SignWith = None,
    as_json: Json = False,
) -> None:
    """Take an image in: verify every digest, load it into the engine, keep what is in it. It may not run yet."""
    from containers.image_store import ImageStore, with_origin

    if (file is None) == (from_engine is None):
        raise UsageFault("give a file, or --from-engine with a digest", hint="cloister node image add FILE")
    loaded = load(config)
    with client_for(loaded, words.IMAGE_ADD, key=key) as client:
        stock = ImageStore(loaded.engine.socket)
        if file is not None:
            found = _from_file(stock, file)
        else:
            found = [_from_engine(stock, _digest(str(from_engine)))]
        facts = [with_origin(each, each.origin, lineage or lineage_of(each)) for each in found]
        for each in facts:
            client.call(words.IMAGE_ADD, words.AddImage(facts=canonical.encode(each).decode("utf-8")))
    _tell_added(facts, as_json)


@app.command("pull")
def pull(
    config: NodeConfig,
    reference: Annotated[str, typer.Argument(help="NAME@sha256:…, its registry named in [images] registries")],
    lineage: Lineage = None,
    key: SignWith = None,
    as_json: Json = False,
) -> None:
    """Have the engine fetch an image by digest from a registry this site allows, and take it in as `add` does."""
    from containers.image_store import ImageStore, with_origin

    loaded = load(config)
    name, digest = _reference(loaded, reference)
    with client_for(loaded, words.IMAGE_ADD, key=key) as client:
        stock = ImageStore(loaded.engine.socket)
        with _bar("fetching") as (bars, bar):
            layers: dict[str, tuple[int, int]] = {}

            def progress(layer: str, done: int, total: int) -> None:
                layers[layer] = (done, total)
                done, total = (sum(sizes) for sizes in zip(*layers.values(), strict=True))
                bars.update(bar, completed=done, total=total)

            stock.pull(name, digest, progress)
        facts = with_origin(_from_engine(stock, digest), "registry", lineage or name)
        client.call(words.IMAGE_ADD, words.AddImage(facts=canonical.encode(facts).decode("utf-8")))
    _tell_added([facts], as_json)


@app.command("list")
def list_images(config: NodeConfig, as_json: Json = False) -> None:
    """Images this hospital was given, and which of them it lets run."""
    with client_for(reach(config), words.IMAGES) as client:
        items = client.call(words.IMAGES, Empty())
    show(list(items), as_json=as_json, table=image_view.listed(items))


@app.command("show")
def show_image(config: NodeConfig, image: Image, as_json: Json = False) -> None:
    """What is in an image: what it starts, its layers and packages, and what changed since the last approved one."""
    with client_for(reach(config), words.IMAGE_SHOW) as client:
        answer = client.call(words.IMAGE_SHOW, words.AskImage(image=_whole(client, image)))
    _view(answer, as_json)


@app.command("diff")
def diff(
    config: NodeConfig,
    image: Image,
    against: Annotated[
        str | None, typer.Argument(help="an earlier image; by itself: the last approved of the same lineage")
    ] = None,
    as_json: Json = False,
) -> None:
    """What changed from an earlier image to this one."""
    with client_for(reach(config), words.IMAGE_SHOW) as client:
        other = None if against is None else _whole(client, against)
        asked = words.AskImage(image=_whole(client, image), against=other)
        answer = client.call(words.IMAGE_SHOW, asked)
    if answer.against is None:
        raise Denied(Reason(Code.IMAGE_NOT_APPROVED, "no other image was approved"), hint="name one: diff IMAGE OTHER")
    before, after = read_facts(answer.against), read_facts(answer.facts)
    changes = differences(before, after)
    plainly = {"image": after.image, "against": before.image, "differences": changes}
    show(plainly, as_json=as_json, table=image_view.changes(changes))


@app.command("approve")
def approve(
    config: NodeConfig,
    image: Image,
    by: By,
    note: Annotated[str, typer.Option(help="a word for your colleagues")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="do not ask; what is in it was looked at before")] = False,
    key: SignWith = None,
    as_json: Json = False,
) -> None:
    """Let an image run here, under permits that name it too: shows what is in it, then asks."""
    with client_for(reach(config), words.IMAGE_APPROVE, key=key) as client:
        digest = _whole(client, image, acts=True)
        answer = client.call(words.IMAGE_SHOW, words.AskImage(image=digest))
        _view(answer, as_json)
        if not answer.unfit and not yes:
            _ask(f"let {answer.line.image} run here, approved by {by}?")
        # what is unfit is asked too: its refusal belongs into the log
        client.call(words.IMAGE_APPROVE, words.ApproveImage(image=digest, by=by, note=note))
    say(f"approved {answer.line.image}")


@app.command("withdraw")
def withdraw(config: NodeConfig, image: Image, by: By, key: SignWith = None) -> None:
    """Take an approval back: gate 1 refuses the image from now on, and its containers are ended."""
    with client_for(reach(config), words.IMAGE_WITHDRAW, key=key) as client:
        image = _whole(client, image, acts=True)
        answer = client.call(words.IMAGE_WITHDRAW, words.WithdrawImage(image=image, by=by))
    say(f"withdrawn {image}; {answer.stopped} containers ended")


# --- inside -------------------------------------------------------------------------------------------------


def _from_file(stock: Any, file: Path) -> list[ImageFacts]:
    from containers.archive import read_file
    from node.core.images.handlers import architecture

    with _bar(f"reading {file.name}", _size(file)) as (bars, bar):
        images = read_file(file, architecture=architecture(), progress=lambda n: bars.advance(bar, n))
    if missing := stock.missing(images):
        with _bar("loading into the engine", _size(file)) as (bars, bar):
            stock.load(file, missing, lambda n: bars.advance(bar, n))
    for each in images:
        stock.confirm(each.facts)
    return [each.facts for each in images]


def _from_engine(stock: Any, digest: str) -> ImageFacts:
    from node.core.images.handlers import architecture

    with _bar("reading the image out of the engine", stock.size_bytes(digest)) as (bars, bar):
        found = stock.export(digest, architecture=architecture(), progress=lambda n: bars.advance(bar, n))
    assert isinstance(found, ImageFacts)
    return found


@contextmanager
def _bar(what: str, total: int | None = None) -> Iterator[tuple[Progress, Any]]:
    """A bar on a terminal, a line elsewhere."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    if not talk.is_terminal:
        say(what)
    words = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*words, console=talk.console, disable=not talk.is_terminal, transient=True) as bars:
        yield bars, bars.add_task(what, total=total or None)


def _size(file: Path) -> int:
    try:
        return sum(each.stat().st_size for each in file.rglob("*")) if file.is_dir() else file.stat().st_size
    except OSError:
        return 0  # reading it says what is wrong


def _reference(config: Configuration, text: str) -> tuple[str, str]:
    """Name and digest; the registry is one that this site allows."""
    name, at, digest = text.partition("@")
    host, slash, rest = name.partition("/")
    if not (at and slash and rest) or not ("." in host or ":" in host or host == "localhost"):
        raise UsageFault("an image in a registry is HOST/NAME@sha256:…", hint="a tag names whatever was pushed last")
    _digest(digest)
    if host not in config.images.registries:
        raise Denied(
            Reason(Code.IMAGE_NOT_PERMITTED, "this site does not fetch images from that registry"),
            hint="an archive does without one: cloister node image add FILE; or name it in [images] registries",
        )
    return name, digest


def _whole(client: Client, image: str, *, acts: bool = False) -> str:
    """The digest of an image this node knows, or one given whole."""
    known = (line.image for line in client.call(words.IMAGES, Empty()))
    return _digest(complete(image, known, "image", acts=acts))


def _digest(text: str) -> str:
    text = f"sha256:{text}" if _HEX.fullmatch(text) else text
    try:
        check_digest(text, "an image")
    except ValueError as error:
        raise UsageFault(str(error), hint="a tag names whatever was pushed last; name a digest") from None
    return text


def _view(answer: words.ImageAnswer, as_json: bool) -> None:
    facts = read_facts(answer.facts)
    before = None if answer.against is None else read_facts(answer.against)
    changes = () if before is None else differences(before, facts)
    if not as_json:
        image_view.print_image(answer.line, facts, answer.unfit, before, changes)
        return
    inside = plain(facts) | {"config": plain(facts.parsed)}
    show(
        plain(answer.line)
        | {
            "facts": inside,
            "unfit": answer.unfit,
            "against": None if before is None else before.image,
            "differences": changes,
        },
        as_json=True,
    )


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise UsageFault("there is nobody to ask", hint="look at it (show), then say --yes")
    if not typer.confirm(question, default=False, err=True):
        say("not approved")
        raise typer.Exit(3)


def _tell_added(facts: Sequence[ImageFacts], as_json: bool) -> None:
    if as_json:
        show([{"image": each.image, "lineage": each.lineage, "names": each.names} for each in facts], as_json=True)
    for each in () if as_json else facts:
        data.print(f"{each.image} {each.lineage}")
    say("added; look at it (cloister node image show), then approve it")
