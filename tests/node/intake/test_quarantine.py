import os
import stat

import pytest

from mediator.errors import IntegrityBroken, UnsupportedVersion
from node.intake.intake_db import IntakeDb, TakenIn
from node.intake.quarantine import CHUNK_BYTES, Quarantine, mark, seal, unseal

KEY = bytes(range(32))


def put(quarantine: Quarantine, path, content: bytes) -> str:
    path.write_bytes(content)
    handle = os.open(path, os.O_RDONLY)
    try:
        name, size = quarantine.put(handle)
    finally:
        os.close(handle)
    assert size == len(content)
    return name


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES])
def test_an_original_comes_back_as_it_was_and_is_not_readable_at_rest(tmp_path, size):
    quarantine = Quarantine(tmp_path / "q", KEY)
    content = (b"Hartog^Wilhelmina " * (size // 18 + 1))[:size]
    name = put(quarantine, tmp_path / "original", content)
    sealed = (tmp_path / "q" / name).read_bytes()
    assert quarantine.get(name) == content and b"Hartog" not in sealed
    assert stat.S_IMODE((tmp_path / "q" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "q").stat().st_mode) == 0o700


def test_a_changed_cut_or_exchanged_file_is_not_opened(tmp_path):
    quarantine = Quarantine(tmp_path / "q", KEY)
    name = put(quarantine, tmp_path / "original", bytes(CHUNK_BYTES * 2 + 5))
    path = tmp_path / "q" / name
    sealed = path.read_bytes()
    step, head = CHUNK_BYTES + 16, 20
    for damaged in (
        sealed[:40] + b"\1" + sealed[41:],
        sealed[:-1],
        sealed[: head + step],  # the last chunks left out
        sealed[:head] + sealed[head + step : head + 2 * step] + sealed[head : head + step] + sealed[head + 2 * step :],
        b"",
        b"CLQ9" + sealed[4:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(IntegrityBroken):
            quarantine.get(name)
    path.write_bytes(sealed)
    with pytest.raises(IntegrityBroken):
        Quarantine(tmp_path / "q", bytes(32)).get(name)


@pytest.mark.parametrize(
    ("at", "length"), [(0, 5), (CHUNK_BYTES - 3, 6), (CHUNK_BYTES, 1), (5, 3 * CHUNK_BYTES), (-0, 0)]
)
def test_an_original_is_read_in_pieces_over_the_seams_of_its_chunks(tmp_path, at, length):
    quarantine = Quarantine(tmp_path / "q", KEY)
    content = os.urandom(2 * CHUNK_BYTES + 77)
    name = put(quarantine, tmp_path / "original", content)
    copied = os.open(tmp_path / "copied", os.O_RDWR | os.O_CREAT)
    with quarantine.open(name) as original:
        assert original.size == len(content) and original.read(at, length) == content[at : at + length]
        assert original.copy(at, length, copied) == len(content[at : at + length])
    os.close(copied)
    assert (tmp_path / "copied").read_bytes() == content[at : at + length]


def test_a_changed_chunk_in_the_middle_is_not_handed_out(tmp_path):
    quarantine = Quarantine(tmp_path / "q", KEY)
    name = put(quarantine, tmp_path / "original", bytes(3 * CHUNK_BYTES))
    path = tmp_path / "q" / name
    sealed = bytearray(path.read_bytes())
    sealed[20 + CHUNK_BYTES + 16 + 5] ^= 1
    path.write_bytes(sealed)
    with quarantine.open(name) as original:
        assert original.read(0, CHUNK_BYTES) == bytes(CHUNK_BYTES)
        with pytest.raises(IntegrityBroken):
            original.read(CHUNK_BYTES, 1)


def test_destruction_counts_and_may_be_repeated(tmp_path):
    quarantine = Quarantine(tmp_path / "q", KEY)
    for number in range(3):
        put(quarantine, tmp_path / "original", bytes(number))
    (tmp_path / "q" / "broken-off.part").touch()
    assert (quarantine.destroy(), quarantine.destroy()) == (3, 0)
    assert not (tmp_path / "q").exists()


def test_keys_are_32_bytes_and_not_printed(tmp_path):
    with pytest.raises(ValueError, match="32 bytes"):
        Quarantine(tmp_path / "q", b"short")
    assert "0001" not in repr(Quarantine(tmp_path / "q", KEY))


def test_the_database_remembers_over_a_restart_and_knows_no_path(tmp_path):
    path = tmp_path / "intake.db"
    database = IntakeDb(path, KEY)
    database.add([TakenIn("a/Hartog\udcfc.dcm", quarantined="00ff"), TakenIn("b", refused="not_a_file")])
    database.close()
    database = IntakeDb(path, KEY)
    assert database.knows("a/Hartog\udcfc.dcm") and not database.knows("c")
    assert [(file.number, file.refused) for file in database.unsurveyed()] == [(1, None), (2, "not_a_file")]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    database.close()
    assert b"Hartog" not in path.read_bytes()


def test_a_database_of_another_version_is_refused(tmp_path):
    database = IntakeDb(tmp_path / "intake.db", KEY)
    database._db.execute("PRAGMA user_version = 1")
    database.close()
    with pytest.raises(UnsupportedVersion):
        IntakeDb(tmp_path / "intake.db", KEY)


def test_a_sealed_value_opens_with_its_key_alone_and_a_changed_one_does_not(tmp_path):
    sealed = seal(KEY, b"Hartog")
    assert unseal(KEY, sealed) == b"Hartog" and b"Hartog" not in sealed and sealed != seal(KEY, b"Hartog")
    for key, changed in ((b"x" * 32, sealed), (KEY, sealed[:-1]), (KEY, bytes([sealed[0] ^ 1]) + sealed[1:])):
        with pytest.raises(IntegrityBroken):
            unseal(key, changed)
    assert mark(KEY, b"Hartog") == mark(KEY, b"Hartog") != mark(b"x" * 32, b"Hartog")
