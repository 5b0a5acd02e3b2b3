"""An image archive: `docker save` (any version), or an OCI layout as a tar file or a folder.

Reading verifies it whole and reports what is in it; loading hands the engine an archive made anew from what was
verified: an engine's loader sees none of the original's names, tags or links. Formats: OCI image specification
(layout, index, manifest, config, layer), Docker image specification v1.2.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from containers.blobs import (
    ArchiveLimits,
    Blob,
    Counted,
    Hashed,
    Shelf,
    file_members,
    outer_name,
    tar_members,
    unpacked,
)
from containers.layers import combine, read_sbom
from containers.tarballs import BLOCK, PIECE_BYTES, header
from mediator import canonical
from mediator.canonical import loads_foreign
from mediator.errors import IntegrityBroken, Malformed
from mediator.images import MAX_CONFIG_BYTES, MAX_LAYERS, MAX_LISTED, ImageFacts, Layer, Origin, Sbom, printable

# an archive of more is nobody's delivery to a hospital
_MAX_IMAGES = 16
_MAX_NESTING = 3
_REFERENCE = "vnd.docker.reference.digest"
_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@dataclass(frozen=True)
class Archived:
    """One image of an archive, verified: its facts, and its layers' members by diff id."""

    facts: ImageFacts
    members: Mapping[str, str]


@dataclass(frozen=True)
class _Found:
    config: Blob
    layers: tuple[Blob, ...]
    manifest: str | None
    names: tuple[str, ...]


def read_file(
    path: Path,
    *,
    architecture: str,
    progress: Callable[[int], None] = lambda _: None,
    limits: ArchiveLimits | None = None,
) -> tuple[Archived, ...]:
    """The images of an archive, verified. `progress` hears how many more bytes were read.

    Raises `Malformed` for what is no archive, lies or is beyond a limit, `IntegrityBroken` for a digest that does not
    fit, `UsageFault` for a file that cannot be read.
    """
    bounds = limits or ArchiveLimits()
    return _images(Shelf(file_members(path, bounds, progress), bounds), "archive", architecture)


def read_stream(stream: Any, *, architecture: str, limits: ArchiveLimits | None = None) -> tuple[Archived, ...]:
    """The same for an archive that an engine sends."""
    bounds = limits or ArchiveLimits()
    return _images(Shelf(tar_members(stream, bounds), bounds), "engine", architecture)


def rebuilt(
    path: Path, images: Sequence[Archived], progress: Callable[[int], None] = lambda _: None
) -> Iterator[bytes]:
    """A `docker save` archive of these images of the file and nothing else, for an engine to load.

    Raises `IntegrityBroken` when a layer is no longer the one that was verified.
    """
    bounds = ArchiveLimits()
    wanted = {name: diff_id for image in images for diff_id, name in image.members.items()}
    sizes = {layer.diff_id: layer.size_bytes for image in images for layer in image.facts.layers}
    for entry, stream in file_members(path, bounds, progress):
        diff_id = wanted.get(outer_name(entry.name))
        if entry.kind == "file" and diff_id is not None and diff_id in sizes:
            yield from _layer(diff_id, sizes.pop(diff_id), stream, bounds)
    if sizes:
        raise _changed()
    for name, document in _documents([image.facts for image in images]):
        yield header(name, len(document)) + document + bytes(-len(document) % BLOCK)
    yield bytes(2 * BLOCK)


def _layer(diff_id: str, size: int, stream: Any, limits: ArchiveLimits) -> Iterator[bytes]:
    plain = Hashed(unpacked(Counted(stream), limits).stream)
    yield header(f"{_hex(diff_id)}/layer.tar", size)
    while plain.size < size and (piece := plain.read(min(PIECE_BYTES, size - plain.size))):
        yield piece
    if plain.size != size or plain.read(1) or plain.sha256 != _hex(diff_id):
        raise _changed()
    yield bytes(-size % BLOCK)


def _changed() -> IntegrityBroken:
    return IntegrityBroken("the archive changed while it was read", hint="nothing was approved; try again")


def _documents(images: Iterable[ImageFacts]) -> Iterator[tuple[str, bytes]]:
    manifest = []
    for facts in images:
        yield f"{_hex(facts.image)}.json", facts.config.encode("utf-8")
        layers = [f"{_hex(layer.diff_id)}/layer.tar" for layer in facts.layers]
        # no tag: a name that a stranger chose would take the place of one of ours
        manifest.append({"Config": f"{_hex(facts.image)}.json", "RepoTags": None, "Layers": layers})
    yield "manifest.json", json.dumps(manifest).encode("ascii")


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


# --- which images -------------------------------------------------------------------------------------------


def _images(shelf: Shelf, origin: Origin, architecture: str) -> tuple[Archived, ...]:
    index = _Index(shelf)
    docker = tuple(_docker_images(shelf))
    found: tuple[_Found, ...] = docker
    if docker and index.images:
        by_config = {each.config.sha256: each for each in index.images}
        if not {each.config.sha256 for each in docker} <= by_config.keys():
            raise Malformed("manifest.json and index.json of the archive name different images")
        found = tuple(
            _Found(each.config, each.layers, by_config[each.config.sha256].manifest, each.names) for each in docker
        )
    elif index.images:
        found = index.images
    if not 0 < len(found) <= _MAX_IMAGES:
        raise Malformed("the archive holds no image" if not found else f"more than {_MAX_IMAGES} images in one archive")
    built = [_archived(each, index.bills(each.manifest), origin) for each in found]
    if not docker and len(built) > 1:  # one image for several machines: the one for this
        here = [each for each in built if each.facts.parsed.architecture == architecture]
        if not here:
            raise Malformed(f"the archive holds several images, none for {architecture}")
        built = here
    return tuple({each.facts.image: each for each in built}.values())


def _docker_images(shelf: Shelf) -> Iterator[_Found]:
    raw = shelf.document("manifest.json")
    entries = [] if raw is None else _json(raw, list)
    for entry in entries[: _MAX_IMAGES + 1]:
        if not isinstance(entry, dict):
            raise Malformed("the archive's manifest.json is not a list of images")
        layers = _strings(entry.get("Layers"), MAX_LAYERS)
        config = _there(shelf, str(entry.get("Config")))
        yield _Found(config, tuple(_there(shelf, name) for name in layers), None, _strings(entry.get("RepoTags")))


def _there(shelf: Shelf, name: str) -> Blob:
    blob = shelf.get(name.removeprefix("./"))
    if blob is None:
        raise Malformed("the archive's manifest names a member that is not there")
    return blob


class _Index:
    """The manifests of an OCI layout, nested indexes unrolled."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._manifests: dict[str, dict[str, Any]] = {}
        self._about: dict[str, str] = {}
        self._named: dict[str, tuple[str, ...]] = {}
        raw = shelf.document("index.json")
        if raw is not None:
            self._unroll(_json(raw, dict), 0)
        self.images = tuple(self._image(digest) for digest in self._manifests if digest not in self._about)

    def bills(self, manifest: str | None) -> tuple[list[Sbom], list[str]]:
        """The bills of materials attached to a manifest, and what is attached but cannot be read."""
        bills, unread = [], []
        for digest, about in self._about.items():
            for each in self._manifests[digest].get("layers") or [] if about == manifest else []:
                blob = self._blob(each)
                bill = None if blob is None or blob.document is None else read_sbom(blob.document, "attached")
                if bill is not None:
                    bills.append(bill)
                elif blob is None or blob.document is None:
                    unread.append("a document attached to the image")
        return bills, unread

    def _unroll(self, index: dict[str, Any], depth: int, names: tuple[str, ...] = ()) -> None:
        entries = index.get("manifests")
        if not isinstance(entries, list) or len(entries) > MAX_LISTED or depth > _MAX_NESTING:
            raise Malformed("the archive's index is not one, or too long")
        for entry in entries:
            blob = self._blob(entry)
            if blob is None or blob.document is None:
                continue  # an index of many machines' images, of which the archive holds some
            plain = _json(blob.document, dict)
            notes = entry.get("annotations") or {}
            if not isinstance(notes, dict):
                raise Malformed("the archive's index is not one")
            called = names or tuple(printable(str(notes[key])) for key in _NAMES if key in notes)
            if "manifests" in plain:
                self._unroll(plain, depth + 1, called)
                continue
            digest, subject = f"sha256:{blob.sha256}", plain.get("subject")
            self._manifests[digest] = plain
            self._named[digest] = called
            if _REFERENCE in notes:
                self._about[digest] = str(notes[_REFERENCE])
            elif isinstance(subject, dict):
                self._about[digest] = str(subject.get("digest"))

    def _image(self, digest: str) -> _Found:
        plain = self._manifests[digest]
        config, layers = self._blob(plain.get("config")), plain.get("layers")
        if config is None or not isinstance(layers, list) or len(layers) > MAX_LAYERS:
            raise Malformed("a manifest of the archive names no configuration, or no list of layers")
        blobs = [self._blob(layer) for layer in layers]
        if None in blobs:
            raise Malformed("a manifest of the archive names a layer that is not there")
        return _Found(config, tuple(blob for blob in blobs if blob), digest, self._named[digest])

    def _blob(self, descriptor: Any) -> Blob | None:
        """The blob a descriptor names. Raises `IntegrityBroken` when its size is another."""
        if not isinstance(descriptor, dict) or not isinstance(descriptor.get("digest"), str):
            raise Malformed("the archive holds a descriptor without a digest")
        algorithm, _, value = descriptor["digest"].partition(":")
        blob = self._shelf.get(f"blobs/{algorithm}/{value}") if algorithm == "sha256" else None
        if blob is not None and descriptor.get("size") != blob.size_bytes:
            raise IntegrityBroken("a blob of the archive has another size than its descriptor says")
        return blob


# --- what is in one -----------------------------------------------------------------------------------------


def _archived(found: _Found, attached: tuple[list[Sbom], list[str]], origin: Origin) -> Archived:
    if found.config.document is None or len(found.config.document) > MAX_CONFIG_BYTES:
        raise Malformed("an image's configuration is too long")
    for blob in found.layers:
        if blob.layer is None:
            raise Malformed(f"a layer cannot be read: {blob.fault}")
    visible = combine(blob.layer for blob in found.layers if blob.layer is not None).values()
    bills, unread = attached
    bills = [*bills, *(each.sbom for each in visible if each.sbom)]
    unread = [*unread, *(each.unread for each in visible if each.unread)]
    layers = tuple(
        Layer(f"sha256:{blob.sha256}", f"sha256:{blob.unpacked_sha256}", blob.unpacked_bytes) for blob in found.layers
    )
    try:
        config = found.config.document.decode("utf-8", "strict")
        facts = ImageFacts(
            image=f"sha256:{found.config.sha256}",
            manifest=found.manifest,
            origin=origin,
            lineage="",
            names=tuple(printable(name) for name in found.names),
            config=config,
            layers=layers,
            packages=tuple(sorted({package for each in visible for package in each.packages})),
            sboms=tuple(sorted(set(bills))),
            unread=tuple(sorted(set(unread))[:MAX_LISTED]),
        )
    except ValueError as error:
        raise Malformed(f"an image of the archive: {error}") from None
    canonical.encode(facts)  # what has no canonical form crosses no socket
    members = {layer.diff_id: blob.name for layer, blob in zip(layers, found.layers, strict=True)}
    return Archived(facts, members)


def _json(raw: bytes, kind: type) -> Any:
    plain = loads_foreign(raw)
    if not isinstance(plain, kind):
        raise Malformed("a document of the archive is not of its kind")
    return plain


def _strings(value: Any, limit: int = MAX_LISTED) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > limit or not all(isinstance(each, str) for each in value):
        raise Malformed("the archive's manifest holds something else where a list of names belongs")
    return tuple(value)
