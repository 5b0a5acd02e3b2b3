"""What hospital staff ask core about images. The facts cross as the canonical JSON of `mediator.images.ImageFacts`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from node.ipc.messages import Empty
from node.ipc.verb import Verb


@dataclass(frozen=True)
class ImageLine:
    """One image. `size_bytes` and `packages` are None for an approval from before facts were kept."""

    image: str
    lineage: str
    state: Literal["added", "approved", "withdrawn"]
    origin: str
    added: datetime | None
    size_bytes: int | None
    packages: int | None
    approved: datetime | None
    approved_by: str | None
    withdrawn: datetime | None
    withdrawn_by: str | None
    note: str


@dataclass(frozen=True)
class AddImage:
    """The facts of an image that the engine now holds."""

    facts: str


@dataclass(frozen=True)
class AddedImage:
    """`new` is false when the very same was known."""

    image: str
    new: bool


@dataclass(frozen=True)
class AskImage:
    """An image by digest, and what to hold it against: a digest, or nothing for the last approved of its lineage."""

    image: str
    against: str | None = None


@dataclass(frozen=True)
class ImageAnswer:
    """An image's facts, where it stands, why it may not be approved (`unfit`), and the facts it is held against."""

    line: ImageLine
    facts: str
    unfit: tuple[str, ...]
    against: str | None = None


@dataclass(frozen=True)
class ApproveImage:
    """An image by digest, by a person: as typed, where they do not sign. `note` is their own words for hospital staff,
    and enters no record."""

    image: str
    by: str
    note: str = ""


@dataclass(frozen=True)
class WithdrawImage:
    image: str
    by: str


@dataclass(frozen=True)
class WithdrawnImage:
    """How many containers of it were ended."""

    stopped: int


IMAGES = Verb("images", Empty, tuple[ImageLine, ...])
IMAGE_ADD = Verb("image_add", AddImage, AddedImage)
IMAGE_SHOW = Verb("image_show", AskImage, ImageAnswer)
IMAGE_APPROVE = Verb("image_approve", ApproveImage, Empty)
IMAGE_WITHDRAW = Verb("image_withdraw", WithdrawImage, WithdrawnImage)
