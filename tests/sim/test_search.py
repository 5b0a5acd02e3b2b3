"""The judge is judged first: a search that finds nothing anywhere would pass every other test."""

import base64
import gzip
import io
import json
import sqlite3
import tarfile
import zipfile
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from tests.sim.dicom import ct_slice, to_bytes
from tests.sim.search import search

TOKEN, FOREIGN = "Qz-abcdefgh1234", "Öäéßbdfgöü"


def zipped(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def tarred(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("inner")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


DRESSES = {
    "plain": TOKEN.encode(),
    "among binary": b"\0\xff\n" + TOKEN.encode() + b"\0",
    "utf-16 little": TOKEN.encode("utf-16-le"),
    "utf-16 big": b"\0" + TOKEN.encode("utf-16-be"),
    "hex": TOKEN.encode().hex().encode(),
    "HEX": TOKEN.encode().hex().upper().encode(),
    **{f"base64 at {n}": base64.b64encode(b"x" * n + TOKEN.encode() + b"yz") for n in range(3)},
    "base64 of utf-16": base64.b64encode(b"{" + TOKEN.encode("utf-16-le")),
    "gzip": gzip.compress(b"before " + TOKEN.encode()),
    "zlib": zlib.compress(TOKEN.encode()),
    "zip": zipped("inner.txt", TOKEN.encode()),
    "name in a zip": zipped(f"{TOKEN}.txt", b"nothing"),
    "base64 in gzip in zip": zipped("a.gz", gzip.compress(base64.b64encode(TOKEN.encode()))),
    "gzip cut short": gzip.compress(TOKEN.encode() + bytes(range(256)) * 400)[:-60],
    "second gzip member": gzip.compress(b"first") + gzip.compress(TOKEN.encode()),
    "tar in gzip": gzip.compress(tarred(TOKEN.encode())),
}


@pytest.mark.parametrize("dress", DRESSES)
def test_a_token_is_found_in_every_dress(tmp_path, dress):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "file").write_bytes(b"start" + DRESSES[dress] if dress == "plain" else DRESSES[dress])
    assert {hit.token for hit in search([tmp_path], [TOKEN, "never-there"])} == {TOKEN}


@pytest.mark.parametrize("content", [FOREIGN.encode(), FOREIGN.encode("latin-1"), json.dumps(FOREIGN).encode()])
def test_letters_outside_ascii_are_found(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    assert [hit.token for hit in search([tmp_path], [FOREIGN])] == [FOREIGN]


def test_a_value_torn_over_database_pages_is_found(tmp_path):
    database = sqlite3.connect(tmp_path / "node.db")
    database.execute("PRAGMA page_size = 512")
    database.execute("CREATE TABLE t (v TEXT)")
    for offset in range(480, 530):
        database.execute("INSERT INTO t VALUES (?)", ("x" * offset + TOKEN + "y" * 600,))
    database.commit()
    database.close()
    assert {hit.token for hit in search([tmp_path], [TOKEN])} == {TOKEN}


def test_a_compressed_column_is_found(tmp_path):
    pq.write_table(pa.table({"remark": [TOKEN] * 50}), tmp_path / "clinical.parquet", compression="zstd")
    assert {hit.token for hit in search([tmp_path], [TOKEN])} == {TOKEN}


def test_a_deflated_dataset_and_a_file_name_are_found(tmp_path):
    dataset = ct_slice()
    dataset.PatientComments = TOKEN
    (tmp_path / "Hartog-77001.dcm").write_bytes(to_bytes(dataset, DeflatedExplicitVRLittleEndian))
    hits = search([tmp_path], [TOKEN, "Hartog-77001"])
    assert {(hit.token, hit.name) for hit in hits} == {(TOKEN, "dataset"), ("Hartog-77001", "path")}


def test_nothing_is_found_where_nothing_is(tmp_path):
    (tmp_path / "file").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "empty").touch()
    (tmp_path / "broken.gz").write_bytes(b"\x1f\x8b rubbish")
    assert search([tmp_path], [TOKEN]) == []


def test_a_token_too_short_to_judge_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="shorter"):
        search([tmp_path], ["Piet"])


def test_a_root_that_is_not_there_is_an_error_not_a_clean_bill(tmp_path):
    with pytest.raises(RuntimeError):
        search([tmp_path / "missing"], [TOKEN])
