"""What lists show: a header even of nothing, every count there is, and what an acceptance does not do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.cli.it import image_view
from node.cli.steward.data import _excluded
from node.cli.steward.permits import _tell_not_wider
from node.ipc.datasets import DatasetLine
from node.ipc.images import ImageLine
from tests.mediator.samples import NOW, permit

IMAGE = ImageLine(
    image="sha256:" + "ab" * 32,
    lineage="lesions",
    state="approved",
    origin="archive",
    added=NOW,
    size_bytes=2_000_000,
    packages=12,
    approved=NOW,
    approved_by="it.admin",
    withdrawn=None,
    withdrawn_by=None,
    note="looked at",
)


def test_a_piped_list_of_images_has_a_header_and_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    image_view.listed([]).print()
    header = capsys.readouterr().out
    assert header.split("\t")[0] == "image"
    image_view.listed([IMAGE, replace(IMAGE, approved=None, approved_by=None, size_bytes=None, state="added")]).print()
    first, approved, added = capsys.readouterr().out.splitlines()
    assert f"{first}\n" == header
    assert approved.split("\t") == [
        IMAGE.image, "approved", str(NOW.date()), "it.admin", "lesions", "2.00 MB", "12", "looked at"
    ]  # fmt: skip
    assert added.split("\t")[:2] == [IMAGE.image, "added"]


def test_files_that_were_left_out_stand_beside_the_studies() -> None:
    counts = {"studies": 3, "instances_excluded": 4, "instances_excluded.not_dicom": 4}
    line = DatasetLine("images", "lesions", "sha256:" + "ab" * 32, NOW, counts, {"too_old": 1}, False)
    assert _excluded(line) == {"too_old": 1, "not_dicom (files)": 4}


def test_an_acceptance_of_more_than_was_granted_is_told_that_it_gives_no_more(
    capsys: pytest.CaptureFixture[str],
) -> None:
    granted = permit(maximum_rounds=20)
    _tell_not_wider(granted, 20, None)
    assert capsys.readouterr().err == ""
    _tell_not_wider(granted, 1000, granted.byte_budget + 1)
    told = capsys.readouterr().err
    assert "grants 20 rounds" in told and f"grants {granted.byte_budget} bytes" in told
