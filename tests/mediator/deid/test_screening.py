import pytest

from mediator.deid.screening import TEXT_RISK_MODALITIES, Exclusion, Facts, screen, sort

CT, SC, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.88.33"
US, MPEG_SC = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.7.2"


def facts(**changes: object) -> Facts:
    plain = {
        "sop_class": CT, "sop_instance": "1.1", "study": "1.2", "series": "1.3", "patient_id": "17",
        "modality": "CT", "image_type": ("DERIVED", "SECONDARY", "MPR"), "has_pixels": True,
    }  # fmt: skip
    return Facts(**(plain | changes))


def test_a_plain_image_passes_derived_or_not():
    assert screen(facts()) == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"patient_id": "  "}, Exclusion.PATIENT_ID_MISSING),
        ({"study": ""}, Exclusion.UIDS_MISSING),
        ({"sop_instance": ""}, Exclusion.UIDS_MISSING),
        ({"sop_class": SC}, Exclusion.SECONDARY_CAPTURE),
        ({"sop_class": MPEG_SC}, Exclusion.SECONDARY_CAPTURE),
        ({"has_conversion_type": True}, Exclusion.SECONDARY_CAPTURE),
        ({"image_type": ("DERIVED", "SECONDARY", "SCREEN SAVE")}, Exclusion.SECONDARY_CAPTURE),
        ({"sop_class": SR}, Exclusion.OBJECT_NOT_SUPPORTED),
        ({"sop_class": ""}, Exclusion.OBJECT_NOT_SUPPORTED),
        ({"has_pixels": False}, Exclusion.PIXELS_MISSING),
        ({"burned_in": "YES"}, Exclusion.PIXEL_TEXT_NOT_CHECKED),
        ({"sop_class": US, "modality": "US", "burned_in": "NO"}, Exclusion.PIXEL_TEXT_NOT_CHECKED),
        ({"sop_class": US, "modality": "CT"}, Exclusion.PIXEL_TEXT_NOT_CHECKED),
        ({"overlay_in_pixels": True}, Exclusion.OVERLAY_IN_PIXELS),
    ],
)
def test_each_reason(changes, reason):
    assert screen(facts(**changes))[0] is reason


@pytest.mark.parametrize("modality", sorted(TEXT_RISK_MODALITIES))
def test_no_claim_of_clean_pixels_is_believed_of_a_risky_modality(modality):
    assert Exclusion.PIXEL_TEXT_NOT_CHECKED in screen(facts(modality=modality, burned_in="NO"))


def test_what_the_reader_found_comes_first_and_every_reason_is_told():
    reasons = screen(facts(patient_id="", sop_class=SC), Exclusion.TRUNCATED)
    assert reasons == (Exclusion.TRUNCATED, Exclusion.PATIENT_ID_MISSING, Exclusion.SECONDARY_CAPTURE)


@pytest.mark.parametrize(
    ("changes", "finding", "place", "reasons"),
    [
        ({}, None, "pass", ()),
        ({"sop_class": US, "modality": "US"}, None, "pass", ()),  # whoever reads pixels holds it back
        ({"sop_class": SR, "modality": "SR", "has_pixels": False}, None, "pass", ()),
        ({"patient_id": ""}, None, "review", (Exclusion.PATIENT_ID_MISSING,)),
        ({"sop_class": SC}, None, "review", (Exclusion.SECONDARY_CAPTURE,)),
        ({"has_conversion_type": True}, None, "review", (Exclusion.SECONDARY_CAPTURE,)),
        ({"image_type": ("DERIVED", "SECONDARY", "SCREEN SAVE")}, None, "review", (Exclusion.SECONDARY_CAPTURE,)),
        ({"sop_class": SC, "study": ""}, None, "refuse", (Exclusion.UIDS_MISSING, Exclusion.SECONDARY_CAPTURE)),
        ({"sop_class": "1.2.840.10008.5.1.4.1.1.104.1"}, None, "refuse", (Exclusion.OBJECT_NOT_SUPPORTED,)),
        ({"sop_class": "1.2.840.10008.1.3.10", "patient_id": "", "has_pixels": False}, None, "refuse", None),
        ({"has_pixels": False}, None, "refuse", (Exclusion.PIXELS_MISSING,)),
        ({"patient_id": ""}, Exclusion.TRUNCATED, "refuse", (Exclusion.TRUNCATED, Exclusion.PATIENT_ID_MISSING)),
    ],
)
def test_in_a_folder_a_person_may_look_or_nothing_is_written(changes, finding, place, reasons):
    sorting = sort(facts(**changes), finding)
    assert sorting.place == place and (reasons is None or sorting.reasons == reasons)
