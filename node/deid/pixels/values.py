"""What is asked about pixels, and what is answered: plain values, nothing that names a person."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mediator.deid.screening import TEXT_RISK_CLASSES, TEXT_RISK_MODALITIES, Facts

# Segmentation and label map segmentation storage (PS3.4 B.5)
_MASKS = frozenset({"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"})
NO_PICTURES = frozenset({"SEG", "RTDOSE"})
# Image Type, value 3 and on: LOCALIZER of CT and MR (PS3.3 C.8.2.1.1.1), and makers' own words for them.
_OVERVIEWS = ("LOCALI", "SCOUT", "TOPOGRAM", "SURVIEW")


class PixelState(StrEnum):
    """What became of an instance's pixels."""

    CLEAN = "clean"
    BLACKED_OUT = "blacked_out"
    REVIEW = "review"


class PixelFinding(StrEnum):
    """Why pixels go to a person. Closed; every one is counted by name."""

    NOT_CHECKED = "pixel_text_not_checked"  # no engine, not the pinned model, or it broke off on this file
    NOT_DECODED = "pixels_not_decoded"  # no decoder for the syntax, or it refused the stream
    TEXT_UNREADABLE = "pixel_text_unreadable"  # something like text that nobody could read
    TEXT_REMAINS = "pixel_text_remains"  # blacked out and still there, or it could not be written back without loss
    OVERLAY_IN_PIXELS = "overlay_in_pixels"  # a drawing in bits above BitsStored
    RECOGNISABLE_FACE = "recognisable_face"  # a thin-slice head scan that nobody defaced


@dataclass(frozen=True, order=True)
class Region:
    """A box that was blacked out or looked like text: frame from 0, pixels from the upper left, ends exclusive."""

    frame: int
    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Instance:
    """A file that gate 0 wrote (never an original: it may be rewritten), and what the original's header said.

    `doubtful`: only a decoder can say that its pixel value holds no more than its pictures.
    """

    path: Path
    facts: Facts
    doubtful: bool = False


@dataclass(frozen=True)
class PixelVerdict:
    """The answer for one instance. `finding` is set exactly when `state` is REVIEW.

    `regions` were blacked out (BLACKED_OUT), or are what a person should look at (REVIEW). `read` counts the pictures
    the engine saw for this instance, shared ones included; 0 means that nothing was looked at. `masked`: its pixels
    held more than its pictures, and do no more. `unseen`: there is a picture, and nobody looked, as somebody decided.
    """

    state: PixelState
    finding: PixelFinding | None = None
    regions: tuple[Region, ...] = ()
    read: int = 0
    masked: bool = False
    unseen: bool = False


def needs_check(facts: Facts, *, believe_no: bool = False) -> bool:
    """Whether the pixels must be looked at before anybody may have them.

    1. All must.
    2. But no masks, unless their maker says that they hold text: a segmentation's frames say to which organ a voxel
       belongs, there are thousands of them, and what a reader of letters took for O or I would be blacked out.
    3. Where somebody decided to believe BurnedInAnnotation NO (`believe_no`), not what says it and is of a modality
       where text is rare.
    """
    if not facts.has_pixels or is_mask(facts):
        return False
    if not believe_no:
        return True
    return is_text_risk(facts) or facts.burned_in.strip().upper() != "NO"


def is_mask(facts: Facts) -> bool:
    """A segmentation of which nobody says that text is drawn in it."""
    return facts.sop_class in _MASKS and facts.burned_in.strip().upper() != "YES"


def is_text_risk(facts: Facts) -> bool:
    """A modality or class where names and dates are drawn into the picture, or a picture that was captured."""
    return (
        facts.modality.strip().upper() in TEXT_RISK_MODALITIES
        or facts.sop_class in TEXT_RISK_CLASSES
        or "SECONDARY" in _made(facts)
        or facts.has_conversion_type
    )


def is_slice(facts: Facts) -> bool:
    """Whether a quick look at it, among its series, is enough: neither a picture where text is usual, nor computed,
    nor a localizer. What it says of text is not asked."""
    if is_text_risk(facts) or facts.burned_in.strip().upper() == "YES":
        return False
    if facts.modality.strip().upper() in NO_PICTURES:
        return True
    return "DERIVED" not in _made(facts) and not is_overview(facts)


def is_overview(facts: Facts) -> bool:
    """A localizer: it is often annotated, and lies among slices of its series."""
    return any(word in value.upper() for value in facts.image_type for word in _OVERVIEWS)


def doubt_matters(facts: Facts) -> bool:
    """Whether a single letter is a reason for review: where text is usual, and in computed pictures."""
    return is_text_risk(facts) or ("DERIVED" in _made(facts) and facts.modality.strip().upper() not in NO_PICTURES)


def _made(facts: Facts) -> set[str]:
    """Values 1 and 2 of Image Type: pixel data and patient examination characteristics (PS3.3 C.7.6.1.1.2)."""
    return {value.strip().upper() for value in facts.image_type[:2]}
