"""Dataset versions as values: ids, records, manifests, views."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediator import canonical
from mediator.datasets import (
    MAX_MANIFEST_BYTES,
    HeldStudy,
    VersionAccount,
    decode_manifest,
    decode_study,
    manifest_of,
    study_record,
    study_root,
    view_of,
)
from mediator.errors import Denied, IntegrityBroken, Malformed, UnsupportedVersion, UsageFault
from mediator.manifests import Deidentification, ManifestV2, StudyRecord
from mediator.types import DatasetFile
from tests.mediator.samples import NOW

HASHES = st.integers(0, 1 << 64).map(lambda number: hashlib.sha256(b"%d" % number).hexdigest())
NAMES = HASHES.map(lambda text: text[:32])
MADE_BY = Deidentification("eucaim", "f" * 64, "4")
OTHER = Deidentification("eucaim", "e" * 64, "5")
COLUMNS = {"lesion": "double"}
ACCOUNT = VersionAccount("images", "lesions", "alpha", MADE_BY, {"studies_in": 9}, {"burned_in": 1}, COLUMNS)
TABLE = DatasetFile("clinical.parquet", 1000, "a" * 64)


def held(number: int, **changes: Any) -> HeldStudy:
    name = hashlib.sha256(b"%d" % number).hexdigest()
    split = ("train", "test", "unlabelled")[number % 3]
    return replace(HeldStudy(name[:32], name[32:], split, 2, name, 2048, MADE_BY), **changes)  # type: ignore[arg-type]


def manifest(*studies: HeldStudy, tables: tuple[DatasetFile, ...] = (TABLE,), **more: Any) -> ManifestV2:
    return manifest_of(ACCOUNT, studies, tables, created=NOW, supersedes=None, **more)


@st.composite
def files(draw: st.DrawFn) -> list[DatasetFile]:
    names = draw(st.sets(st.integers(0, 9999).map("{:04d}.dcm".format), min_size=1, max_size=12))
    return [DatasetFile(name, draw(st.integers(0, 1 << 40)), draw(HASHES)) for name in sorted(names)]


@st.composite
def studies(draw: st.DrawFn) -> list[HeldStudy]:
    names = draw(st.sets(NAMES, min_size=1, max_size=8))
    splits = st.sampled_from(["train", "test", "unlabelled"])
    return [
        HeldStudy(name, draw(NAMES), draw(splits), draw(st.integers(1, 9999)), draw(HASHES), 10, MADE_BY)  # type: ignore[arg-type]
        for name in names
    ]


# --- ids ------------------------------------------------------------------------------------------------------


@given(files(), st.randoms())
def test_a_studys_root_is_its_files_in_whatever_order_they_come(
    listed: list[DatasetFile], chance: random.Random
) -> None:
    mixed = list(listed)
    chance.shuffle(mixed)
    record = study_record(mixed, MADE_BY)
    assert record.root == study_root(listed) and record.files == tuple(listed)
    assert decode_study(canonical.encode(record), record.root) == record
    assert record.size_bytes == sum(file.size_bytes for file in listed)


@given(files(), st.data())
def test_any_name_size_or_hash_makes_another_study(listed: list[DatasetFile], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(listed) - 1))
    file, root = listed[at], study_root(listed)
    for changed in (
        replace(file, path="99999.dcm"),
        replace(file, size_bytes=file.size_bytes + 1),
        replace(file, sha256=hashlib.sha256(file.sha256.encode()).hexdigest()),
    ):
        assert study_root([*listed[:at], changed, *listed[at + 1 :]]) != root
    assert study_root([*listed[:at], *listed[at + 1 :]]) != root
    assert study_root([*listed, DatasetFile("99999.dcm", 1, "a" * 64)]) != root


@given(studies(), st.randoms())
def test_a_version_is_its_studies_and_tables_in_whatever_order_they_come(
    listed: list[HeldStudy], chance: random.Random
) -> None:
    first, mixed = manifest(*listed), list(listed)
    chance.shuffle(mixed)
    again = manifest_of(replace(ACCOUNT, excluded={}), mixed, [TABLE], created=NOW.replace(year=2030), supersedes="x")
    assert again.dataset_version == first.dataset_version, "the date, the account and what it supersedes are beside it"
    assert decode_manifest(canonical.encode(first)) == first
    assert [study.study for study in first.studies] == sorted(study.study for study in listed)
    assert first.tables == (TABLE,)


@given(studies(), st.data())
def test_any_pseudonym_split_number_or_root_makes_another_version(listed: list[HeldStudy], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(listed) - 1))
    study, known = listed[at], manifest(*listed).dataset_version
    for changed in (
        replace(study, study=hashlib.sha256(study.study.encode()).hexdigest()[:32]),
        replace(study, patient=hashlib.sha256(study.patient.encode()).hexdigest()[:32]),
        replace(study, split="test" if study.split != "test" else "train"),
        replace(study, instances=study.instances + 1),
        replace(study, root=hashlib.sha256(study.root.encode()).hexdigest()),
    ):
        assert manifest(*listed[:at], changed, *listed[at + 1 :]).dataset_version != known
    assert manifest(*listed[:at], *listed[at + 1 :]).dataset_version != known
    for table in (replace(TABLE, size_bytes=1), replace(TABLE, sha256="b" * 64), replace(TABLE, path="labs.parquet")):
        assert manifest(*listed, tables=(table,)).dataset_version != known
    assert manifest(*listed, tables=()).dataset_version != known


# --- what a manifest says -------------------------------------------------------------------------------------


def test_a_manifest_counts_its_studies_beside_what_came_in() -> None:
    made = manifest(*map(held, range(6)))
    assert made.counts == {
        "studies_in": 9, "studies": 6, "instances": 12, "patients": 6, "train": 2, "test": 2, "unlabelled": 2,
        "instance_bytes": 6 * 2048,
    }  # fmt: skip
    assert made.deidentification == (MADE_BY,) and manifest().deidentification == (MADE_BY,)


def test_studies_of_two_fingerprints_are_one_version_only_where_that_was_ordered() -> None:
    two = (held(0), held(1, deidentification=OTHER))
    with pytest.raises(UsageFault, match="in 2 ways"):
        manifest(*two)
    mixed = manifest(*two, mixed=True)
    assert mixed.deidentification == (OTHER, MADE_BY)
    view = view_of(mixed, "train", [])
    assert view.profile == "eucaim" and view.profile_fingerprint == f"{'e' * 64},{'f' * 64}"
    assert manifest(held(0), mixed=True) == manifest(held(0)), "an order to mix alone mixes nothing"


@pytest.mark.parametrize("change", [{"study": "Hartog"}, {"patient": "HX-77001234"}, {"instances": 0}, {"root": "x"}])
def test_a_study_that_is_not_named_by_pseudonyms_is_in_no_version(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        manifest(held(0, **change))


@pytest.mark.parametrize("table", ["../clinical.parquet", "manifest.json", "Hartog.parquet", ""])
def test_a_table_lies_where_tables_do(table: str) -> None:
    with pytest.raises(Malformed):
        manifest(held(0), tables=(replace(TABLE, path=table),))


def test_nothing_stands_twice_in_a_version() -> None:
    with pytest.raises(Malformed):
        manifest(held(0), held(0, root="1" * 64))
    with pytest.raises(Malformed):
        manifest(held(0), tables=(TABLE, TABLE))


# --- read strictly --------------------------------------------------------------------------------------------

Leaves = list[Any]
FORGERIES: dict[str, Callable[[Leaves], Leaves]] = {
    "another order": lambda leaves: [leaves[1], leaves[0], *leaves[2:]],
    "a table first": lambda leaves: [leaves[-1], *leaves[:-1]],
    "a study twice": lambda leaves: [leaves[0], *leaves],
    "a shorter leaf": lambda leaves: [leaves[0][:-1], *leaves[1:]],
    "a longer leaf": lambda leaves: [[*leaves[0], 1], *leaves[1:]],
    "an empty leaf": lambda leaves: [[], *leaves[1:]],
    "another kind": lambda leaves: [["series", *leaves[0][1:]], *leaves[1:]],
    "a fraction": lambda leaves: [[*leaves[0][:4], 1.5, leaves[0][5]], *leaves[1:]],
    "a truth": lambda leaves: [[*leaves[0][:4], True, leaves[0][5]], *leaves[1:]],
    "no split": lambda leaves: [[*leaves[0][:3], "validation", *leaves[0][4:]], *leaves[1:]],
    "no root": lambda leaves: [[*leaves[0][:5], None], *leaves[1:]],
    "no text": lambda leaves: [["study", 7, *leaves[0][2:]], *leaves[1:]],
}


@pytest.mark.parametrize("what", FORGERIES)
def test_a_manifest_that_is_spelled_otherwise_is_refused(what: str) -> None:
    plain = canonical.to_plain(manifest(*map(held, range(3))))
    plain["leaves"] = FORGERIES[what](plain["leaves"])
    with pytest.raises(Malformed):
        decode_manifest(canonical.dumps(plain))


def test_a_manifest_of_another_version_or_of_no_version_is_refused() -> None:
    plain = canonical.to_plain(manifest(held(0)))
    with pytest.raises(UnsupportedVersion):
        decode_manifest(canonical.dumps(plain | {"version": 3}))
    other = (plain | {"also": 1}, plain | {"deidentification": []}, plain | {"dataset_version": "latest"})
    for raw in (b"", b"[]", b"{}", *map(canonical.dumps, other)):
        with pytest.raises((Malformed, UnsupportedVersion)):
            decode_manifest(raw)


def test_a_manifest_that_is_not_of_its_version_breaks_integrity() -> None:
    plain = canonical.to_plain(manifest(*map(held, range(3))))
    plain["leaves"][0][3] = "test" if plain["leaves"][0][3] == "train" else "train"
    with pytest.raises(IntegrityBroken):
        decode_manifest(canonical.dumps(plain))


@pytest.mark.parametrize("name", ["../0001.dcm", "Hartog.dcm", "1.dcm", "0001.dcm/x", ""])
def test_a_file_of_a_study_is_named_by_a_number(name: str) -> None:
    good = canonical.to_plain(study_record([DatasetFile("0001.dcm", 1, "a" * 64)], MADE_BY))
    with pytest.raises(Malformed):
        decode_study(canonical.dumps(good | {"leaves": [[name, 1, "a" * 64]]}), good["root"])


def test_a_study_that_is_not_what_its_root_says_breaks_integrity() -> None:
    record = study_record([DatasetFile("0001.dcm", 1, "a" * 64), DatasetFile("0002.dcm", 2, "b" * 64)], MADE_BY)
    other = study_record([DatasetFile("0001.dcm", 1, "c" * 64)], MADE_BY)
    plain = canonical.to_plain(record)
    for leaves in (plain["leaves"][:1], [plain["leaves"][0], ["0002.dcm", 3, "b" * 64]]):
        with pytest.raises(IntegrityBroken):
            decode_study(canonical.dumps(plain | {"leaves": leaves}), record.root)
    for raw in (canonical.encode(other), canonical.dumps(plain | {"root": other.root})):
        with pytest.raises(IntegrityBroken):
            decode_study(raw, record.root)
    with pytest.raises(Malformed):
        decode_study(canonical.dumps(plain | {"leaves": list(reversed(plain["leaves"]))}), record.root)
    with pytest.raises(ValueError, match="has files"):
        StudyRecord(record.root, MADE_BY, ())


# --- views and sizes ------------------------------------------------------------------------------------------


def test_a_view_has_the_keys_it_always_had() -> None:
    view = view_of(manifest(*map(held, range(6))), "train", ["lesion"])
    plain = canonical.to_plain(view)
    assert (plain["kind"], plain["version"]) == ("cloister.manifest", 1)
    assert set(plain["studies"][0]) == {"study", "patient", "split", "folder", "instances"}
    assert {study.split for study in view.studies} == {"train"} and view.counts["studies"] == 2
    assert all(study.folder == f"studies/{study.study}" for study in view.studies)
    assert (view.columns, view.excluded, view.files) == ({"lesion": "double"}, {}, ())
    with pytest.raises(Denied):
        view_of(manifest(held(0)), "train", ["name"])


def test_a_study_is_a_hundred_and_sixty_bytes_of_a_manifest_however_many_files_it_has() -> None:
    small, large = (canonical.encode(manifest(*(held(n, instances=1500) for n in range(k)))) for k in (1000, 2000))
    assert (len(large) - len(small)) / 1000 < 162
    assert MAX_MANIFEST_BYTES > 1_000_000 * 162
