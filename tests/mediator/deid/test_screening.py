import pytest

from mediator.deid.screening import TEXT_RISK_MODALITIES, Exclusion, Facts, screen, sort

CT, SC, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.88.33"
US, MPEG_SC = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.7.2"


STORAGE = "1.2.840.10008.5.1.4.1.1."
COMPANIONS = {
    "softcopy presentation state": "11.1", "colour presentation state": "11.2", "segmentation": "66.4",
    "surface segmentation": "66.5", "structure set": "481.3", "plan": "481.5", "ion plan": "481.8", "dose": "481.2",
    "basic text report": "88.11", "enhanced report": "88.22", "comprehensive report": "88.33",
    "comprehensive 3D report": "88.34", "key objects": "88.59", "dose report": "88.67", "registration": "66.1",
    "parametric map": "30", "real world values": "67",
}  # fmt: skip
ENHANCED = {"CT": "2.1", "legacy CT": "2.2", "MR": "4.1", "legacy MR": "4.4", "PET": "130", "legacy PET": "128.1"}
NAMED = {
    STORAGE + "104.1": Exclusion.ENCAPSULATED_DOCUMENT,  # PDF
    STORAGE + "104.2": Exclusion.ENCAPSULATED_DOCUMENT,  # CDA
    STORAGE + "104.3": Exclusion.ENCAPSULATED_DOCUMENT,  # STL
    "1.2.840.10008.1.3.10": Exclusion.MEDIA_DIRECTORY,
    STORAGE + "9.1.1": Exclusion.WAVEFORM,  # 12-lead ECG
    STORAGE + "9.4.1": Exclusion.WAVEFORM,  # voice
    STORAGE + "77.1.6": Exclusion.WHOLE_SLIDE_IMAGE,
    STORAGE + "66": Exclusion.RAW_DATA,
    STORAGE + "4.2": Exclusion.RAW_DATA,  # spectroscopy
}


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
        ({"sop_class": STORAGE + "88.40"}, Exclusion.OBJECT_NOT_SUPPORTED),
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


@pytest.mark.parametrize("sop_class", COMPANIONS.values(), ids=COMPANIONS)
@pytest.mark.parametrize("has_pixels", [True, False])
def test_what_goes_with_images_passes_with_them(sop_class, has_pixels):
    told = facts(sop_class=STORAGE + sop_class, modality="SEG", has_pixels=has_pixels)
    assert screen(told) == () and sort(told).place == "pass"


@pytest.mark.parametrize("sop_class", ENHANCED.values(), ids=ENHANCED)
def test_enhanced_multi_frame_images_pass(sop_class):
    assert screen(facts(sop_class=STORAGE + sop_class)) == ()


@pytest.mark.parametrize("sop_class", NAMED)
def test_what_no_table_can_clean_is_refused_by_its_own_name_alone(sop_class):
    told = facts(sop_class=sop_class, patient_id="", study="", has_pixels=False)
    assert screen(told) == (NAMED[sop_class],)
    assert (sort(told).place, sort(told).reasons) == ("refuse", (NAMED[sop_class],))
    assert screen(told, Exclusion.TRUNCATED) == (Exclusion.TRUNCATED, NAMED[sop_class])


def test_a_class_nobody_taught_us_is_not_supported():
    assert screen(facts(sop_class="1.2.3.4"))[0] is Exclusion.OBJECT_NOT_SUPPORTED


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
        ({"sop_class": "1.2.3.4"}, None, "refuse", (Exclusion.OBJECT_NOT_SUPPORTED,)),
        ({"has_pixels": False}, None, "refuse", (Exclusion.PIXELS_MISSING,)),
        ({"patient_id": ""}, Exclusion.TRUNCATED, "refuse", (Exclusion.TRUNCATED, Exclusion.PATIENT_ID_MISSING)),
    ],
)
def test_in_a_folder_a_person_may_look_or_nothing_is_written(changes, finding, place, reasons):
    sorting = sort(facts(**changes), finding)
    assert (sorting.place, sorting.reasons) == (place, reasons)
