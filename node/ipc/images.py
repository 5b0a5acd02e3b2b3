"""What hospital staff ask core about images. The facts cross as the canonical JSON of `mediator.images.ImageFacts`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from node.ipc.channel import Verb
from node.ipc.messages import Empty, Message

State = Literal["added", "approved", "withdrawn"]


class ImageLine(Message):
    """One image. `size_bytes` and `packages` are None for an approval from before facts were kept."""

    image: str
    lineage: str
    state: State
    origin: str
    added: datetime | None
    size_bytes: int | None
    packages: int | None
    approved: datetime | None
    approved_by: str | None
    withdrawn: datetime | None
    note: str


class Images(Message):
    items: tuple[ImageLine, ...]


class AddImage(Message):
    """The facts of an image that the engine now holds."""

    facts: str


class Added(Message):
    """`new` is false when the very same was known."""

    image: str
    new: bool


class AskImage(Message):
    """An image by digest, and what to hold it against: a digest, or nothing for the last approved of its lineage."""

    image: str
    against: str | None = None


class ImageAnswer(Message):
    """An image's facts, where it stands, why it may not be approved (`unfit`), and the facts it is held against."""

    line: ImageLine
    facts: str
    unfit: tuple[str, ...]
    against: str | None = None


class ApproveImage(Message):
    """An image by digest, by a person. `note` is their own words for hospital staff, and enters no record."""

    image: str
    by: str
    note: str = ""


class WithdrawImage(Message):
    image: str
    by: str


class Withdrawn(Message):
    """How many containers of it were ended."""

    stopped: int


IMAGES = Verb("images", Empty, Images)
IMAGE_ADD = Verb("image_add", AddImage, Added)
IMAGE_SHOW = Verb("image_show", AskImage, ImageAnswer)
IMAGE_APPROVE = Verb("image_approve", ApproveImage, Empty)
IMAGE_WITHDRAW = Verb("image_withdraw", WithdrawImage, Withdrawn)

LISTED = (IMAGES, IMAGE_ADD, IMAGE_SHOW, IMAGE_APPROVE, IMAGE_WITHDRAW)
