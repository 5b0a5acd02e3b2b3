"""Whether an instance may pass at all: gate 0's verdict on the whole file, before any element is looked at.

1. It could be read whole (`finding` of the reader).
2. Its identifiers are there: without PatientID or study, nothing could be kept apart.
3. It is no secondary capture: SOP class, an ImageType that names a screen, or ConversionType where pixels are not
   read anyway.
4. It is of a class whose content is known: an image of pixels and header, or a companion (segmentation, structures,
   plan, dose, report, presentation state, key object) that goes with its study. What holds a document, a directory, a
   signal or a whole slide is named, and told alone: it has identifiers of its own, in places nobody can clean.
5. Its pixels carry no text we know of, or might: those that may need reading are held back.
6. No overlay hides in the high bits of its pixels.

`screen` finds the reasons. `publish` is what a node's ingest asks: every one of them excludes. `sort` is what a folder
asks, where a person can look: the same reasons, each either for *review* (written de-identified, but apart) or
*refused* (nothing is written). Text in pixels is then for whoever reads pixels to find.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Exclusion(StrEnum):
    """Why an instance or a study is not published. Closed; every one is counted by name."""

    # the file
    NOT_A_FILE = "not_a_file"
    NOT_DICOM = "not_dicom"
    PREAMBLE_MISSING = "preamble_missing"  # begins as DICOM does behind its preamble, and does not hold to its end
    SYNTAX_MISSING = "syntax_missing"  # says not how it is written, and nothing else tells: compressed, or damaged
    TOO_LARGE = "too_large"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    TOO_DEEP = "too_deep"
    TOO_MANY_ELEMENTS = "too_many_elements"
    INFLATE_LIMIT = "inflate_limit"
    SYNTAX_NOT_SUPPORTED = "syntax_not_supported"
    PIXELS_INCONSISTENT = "pixels_inconsistent"
    UNREADABLE = "unreadable"
    # what it is
    PATIENT_ID_MISSING = "patient_id_missing"
    UIDS_MISSING = "uids_missing"
    SECONDARY_CAPTURE = "secondary_capture"
    ENCAPSULATED_DOCUMENT = "encapsulated_document"
    MEDIA_DIRECTORY = "media_directory"
    WAVEFORM = "waveform"
    WHOLE_SLIDE_IMAGE = "whole_slide_image"
    OPHTHALMIC_IMAGE = "ophthalmic_image"
    RAW_DATA = "raw_data"
    OBJECT_NOT_SUPPORTED = "object_not_supported"
    PIXELS_MISSING = "pixels_missing"
    PIXEL_TEXT_NOT_CHECKED = "pixel_text_not_checked"
    OVERLAY_IN_PIXELS = "overlay_in_pixels"
    # what was seen in its pixels
    PIXELS_NOT_DECODED = "pixels_not_decoded"
    PIXEL_TEXT_UNREADABLE = "pixel_text_unreadable"
    PIXEL_TEXT_REMAINS = "pixel_text_remains"
    RECOGNISABLE_FACE = "recognisable_face"
    # among others
    PATIENT_MISMATCH = "patient_mismatch"
    PATIENT_SPLIT = "patient_split"
    DUPLICATE_INSTANCE = "duplicate_instance"
    # what was written
    RESIDUAL_IDENTIFIER = "residual_identifier"
    DATES_DIFFER = "dates_differ"
    VALUES_UNREADABLE = "values_unreadable"
    OUTPUT_EXISTS = "output_exists"
    # what befell us over it: it is nobody's fault but ours, and waits until we have mended ourselves
    OUR_DEFECT = "our_defect"


class Note(StrEnum):
    """What was done to a file that passes, beyond its profile: how it was read, or what of it no decoder reads. Closed;
    told in its line of the report, and counted by name."""

    READ_WITHOUT_PREAMBLE = "read_without_preamble"  # read by force, and whole: the preamble that says DICOM is missing
    READ_WITHOUT_META = "read_without_meta"  # the transfer syntax, of which it says nothing, told from its first bytes
    PIXEL_PADDING_CUT = "pixel_padding_cut"  # native pixels were longer than the header says, by less than a frame
    DELIMITER_MISSING = "delimiter_missing"  # encapsulated pixels without the end they must have
    PIXELS_AS_UN = "pixels_as_un"  # native pixels under VR UN
    FRAMES_INFLATED = "frames_inflated"  # deflated frames, written as native pixels
    PIXELS_NOT_LOOKED_AT = "pixels_not_looked_at"  # they say they have no text, and somebody decided to believe it
    DEFACED_BEFORE = "defaced_before"  # would show a face; passes because a person said what took it off
    BITS_MASKED = "bits_masked"  # bits above those stored, an old overlay's or nobody's, are gone


# Modalities whose pixels often carry names and dates: nobody may decide to believe BurnedInAnnotation NO of them.
TEXT_RISK_MODALITIES = frozenset(
    {"US", "IVUS", "SC", "CR", "DX", "MG", "XA", "RF", "OT", "ES", "RTIMAGE", "IO", "PX", "XC"}
)
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_TOMOGRAPHIC = frozenset(
    _STORAGE + tail for tail in ("2", "2.1", "2.2", "4", "4.1", "4.3", "4.4", "20", "128", "128.1", "130")
)  # CT, MR, NM and PET with their enhanced and legacy-converted forms
# CR, DX, MG, intra-oral, US, XA, RF, 3D X-ray, breast tomosynthesis and projections, RT images, endoscopy, microscopy,
# photography
TEXT_RISK_CLASSES = frozenset(
    _STORAGE + tail
    for tail in (
        "1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1", "3", "3.1", "6", "6.1", "6.2", "12.1", "12.1.1", "12.2",
        "12.2.1", "13.1.1", "13.1.2", "13.1.3", "13.1.4", "13.1.5", "481.1", "77.1.1", "77.1.1.1", "77.1.2", "77.1.4",
        "77.1.7",
    )
)  # fmt: skip
# No pixels, or pixels that are no picture; text and references are cleaned by the same table: presentation states,
# structured reports (of computer aided detection, dose and contrast agents, too), key objects, segmentations,
# tractography, registrations, parametric maps, RT structures, doses, plans and records of treatment.
_COMPANIONS = frozenset(
    _STORAGE + tail
    for tail in (
        "11.1", "11.2", "11.3", "11.4", "88.11", "88.22", "88.33", "88.34", "88.35", "88.50", "88.59", "88.65", "88.67",
        "88.68", "88.69", "88.71", "88.72", "88.73", "88.74", "88.75", "88.76", "66.1", "66.2", "66.3", "66.4", "66.5",
        "66.6", "66.7", "30", "481.2", "481.3", "481.4", "481.5", "481.6", "481.7", "481.8", "481.9", "67",
    )
)  # fmt: skip
# What no table can clean: a PDF's or CDA's own text, names in a directory's records, free text in a signal's
# annotations, the label of a glass slide, a retina (as much a face as a fingerprint is a hand), bytes of a maker's own.
_BY_NAME = {
    **{_STORAGE + f"104.{number}": Exclusion.ENCAPSULATED_DOCUMENT for number in range(1, 6)},
    "1.2.840.10008.1.3.10": Exclusion.MEDIA_DIRECTORY,
    **{_STORAGE + tail: Exclusion.WHOLE_SLIDE_IMAGE for tail in ("77.1.6", "77.1.9")},
    **{
        _STORAGE + tail: Exclusion.OPHTHALMIC_IMAGE
        for tail in (
            "77.1.5.1",
            "77.1.5.2",
            "77.1.5.3",
            "77.1.5.4",
            "77.1.5.5",
            "77.1.5.6",
            "77.1.5.7",
            "77.1.5.8",
            "81.1",
            "82.1",
        )
    },
    **{_STORAGE + tail: Exclusion.RAW_DATA for tail in ("66", "4.2")},
}
_WAVEFORMS = _STORAGE + "9."
_SECONDARY_CAPTURES = (_STORAGE + "7",)  # and 7.1 to 7.4, the multi-frame ones
_SCREEN_WORDS = ("SCREEN", "CAPTURE", "SNAPSHOT")


@dataclass(frozen=True)
class Facts:
    """What the reader found in a header: enough for the verdict, never shown to anyone."""

    sop_class: str = ""
    sop_instance: str = ""
    study: str = ""
    series: str = ""
    patient_id: str = ""
    issuer: str = ""
    modality: str = ""
    image_type: tuple[str, ...] = ()
    has_conversion_type: bool = False
    burned_in: str = ""
    has_pixels: bool = False
    overlay_in_pixels: bool = False
    series_number: int = 0
    instance_number: int = 0


def screen(facts: Facts, finding: Exclusion | None = None) -> tuple[Exclusion, ...]:
    """Every reason why this instance is held back, the first being the one counted; () lets it pass."""
    found = [finding] if finding is not None else []  # (1)
    if (named := _named(facts.sop_class)) is not None:  # (4)
        return (*found, named)
    if not facts.patient_id.strip():  # (2)
        found.append(Exclusion.PATIENT_ID_MISSING)
    if not (facts.study and facts.series and facts.sop_instance):
        found.append(Exclusion.UIDS_MISSING)
    is_image = facts.sop_class in _TOMOGRAPHIC | TEXT_RISK_CLASSES
    if _is_secondary_capture(facts):  # (3)
        found.append(Exclusion.SECONDARY_CAPTURE)
    elif not is_image and facts.sop_class not in _COMPANIONS:  # (4)
        found.append(Exclusion.OBJECT_NOT_SUPPORTED)
    elif is_image and not facts.has_pixels:
        found.append(Exclusion.PIXELS_MISSING)
    if _may_carry_text(facts):  # (5)
        found.append(Exclusion.PIXEL_TEXT_NOT_CHECKED)
    if facts.overlay_in_pixels:  # (6)
        found.append(Exclusion.OVERLAY_IN_PIXELS)
    return tuple(found)


@dataclass(frozen=True)
class Sorting:
    """Where an instance goes, and why. `reasons` is empty exactly when it passes."""

    place: Literal["pass", "review", "refuse"]
    reasons: tuple[Exclusion, ...] = ()


# what a person may decide on when looking at the de-identified file; all else has no safe form
_FOR_REVIEW = frozenset({
    Exclusion.PATIENT_ID_MISSING, Exclusion.SECONDARY_CAPTURE, Exclusion.OVERLAY_IN_PIXELS, Exclusion.VALUES_UNREADABLE,
})  # fmt: skip


def sort(facts: Facts, finding: Exclusion | None = None) -> Sorting:
    """Pass, review or refuse; one reason to refuse outweighs any number of reasons to review, and is told first."""
    found = _without_text(facts, finding)
    if not found:
        return Sorting("pass")
    if set(found) <= _FOR_REVIEW:
        return Sorting("review", found)
    return Sorting("refuse", tuple(sorted(found, key=_FOR_REVIEW.__contains__)))


def publish(facts: Facts, finding: Exclusion | None = None) -> Sorting:
    """Pass or refuse, where nobody can look: the reasons in the order of `screen`, less what is for a pixel reader."""
    found = _without_text(facts, finding)
    return Sorting("refuse", found) if found else Sorting("pass")


def with_values_unreadable(sorting: Sorting, *, review: bool) -> Sorting:
    """The same file, when a number that geometry, pixel values or decoding depend on could not be kept: readers would
    take one of their own instead. `review`: a person may look."""
    reasons = (*sorting.reasons, Exclusion.VALUES_UNREADABLE)
    return Sorting("review" if review and sorting.place != "refuse" else "refuse", reasons)


def _without_text(facts: Facts, finding: Exclusion | None) -> tuple[Exclusion, ...]:
    """Whoever reads pixels says what is drawn in them."""
    return tuple(reason for reason in screen(facts, finding) if reason is not Exclusion.PIXEL_TEXT_NOT_CHECKED)


def _named(sop_class: str) -> Exclusion | None:
    return Exclusion.WAVEFORM if sop_class.startswith(_WAVEFORMS) else _BY_NAME.get(sop_class)


def _is_secondary_capture(facts: Facts) -> bool:
    by_class = any(facts.sop_class == uid or facts.sop_class.startswith(uid + ".") for uid in _SECONDARY_CAPTURES)
    by_type = any(word in value.upper() for value in facts.image_type for word in _SCREEN_WORDS)
    # of classes whose pixels are always read it says how a film or portal image became one
    by_conversion = facts.has_conversion_type and facts.sop_class not in TEXT_RISK_CLASSES
    return by_class or by_type or by_conversion


def _may_carry_text(facts: Facts) -> bool:
    return (
        facts.burned_in.strip().upper() == "YES"
        or facts.modality.strip().upper() in TEXT_RISK_MODALITIES
        or facts.sop_class in TEXT_RISK_CLASSES
    )
