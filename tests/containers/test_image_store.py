"""The images of an engine, taken in and handed out: the same on Docker and on Podman."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from containers.archive import Archived, read_file
from containers.image_store import ImageStore
from mediator.errors import IntegrityBroken, UsageFault
from tests.containers.bench import ENGINE_URL
from tests.sim.images import BASE, Tiny, layer, write

pytestmark = pytest.mark.engine


@pytest.fixture(params=["docker", "podman"])
def stock(request: pytest.FixtureRequest) -> ImageStore:
    return ImageStore(ENGINE_URL if request.param == "docker" else request.getfixturevalue("podman_url"))


@pytest.fixture
def given(stock: ImageStore, tmp_path: Path) -> Iterator[tuple[Path, Archived]]:
    """An image that no engine has ever seen, which claims the name of one of ours."""
    one = Tiny(
        layers=[layer({**BASE, "unique": uuid.uuid4().bytes})], tags=["cloister-sentinel:latest"], packing="zstd"
    )
    path = write(tmp_path / "image.tar", one.laid_out())
    (found,) = read_file(path, architecture="amd64")
    yield path, found
    if stock.image(one.id):
        docker.APIClient(stock.url).remove_image(one.id, force=True)


def test_an_image_is_loaded_confirmed_and_handed_out_as_it_was_read(
    stock: ImageStore, given: tuple[Path, Archived]
) -> None:
    path, found = given
    assert stock.missing([found]) == [found]
    told: list[int] = []
    stock.load(path, [found], told.append)
    stock.confirm(found.facts)
    assert stock.missing([found]) == [] and sum(told) > 0
    again = stock.export(found.facts.image, architecture="amd64", progress=told.append)
    assert again.names == (), "its own name took the place of nobody's"
    same = [replace(each, digest=each.diff_id) for each in found.facts.layers]
    assert again == replace(found.facts, origin="engine", names=(), manifest=None, layers=tuple(same))


def test_an_image_that_is_not_there_is_neither_confirmed_nor_handed_out(
    stock: ImageStore, given: tuple[Path, Archived]
) -> None:
    _, found = given
    with pytest.raises(IntegrityBroken, match="does not hold"):
        stock.confirm(found.facts)
    with pytest.raises(UsageFault, match="holds no image"):
        stock.export(found.facts.image, architecture="amd64", progress=lambda _: None)
    assert stock.size_bytes(found.facts.image) == 0


def test_an_archive_exchanged_after_it_was_read_is_not_loaded(stock: ImageStore, given: tuple[Path, Archived]) -> None:
    path, found = given
    write(path, Tiny(layers=[layer({"bin/true": b"EVIL"})]).laid_out())
    with pytest.raises(IntegrityBroken, match="changed"):
        stock.load(path, [found], lambda _: None)
    assert stock.missing([found]) == [found]
