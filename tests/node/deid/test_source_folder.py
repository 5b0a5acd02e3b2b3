import os

import pytest

from mediator.deid.screening import Exclusion
from mediator.errors import UsageFault
from node.deid import source_folder as folder


def names(source, skip=None) -> dict[str, Exclusion | None]:
    found = {}
    for entry in folder.walk(str(source), skip):
        found[entry.path] = entry.refused
        if entry.handle is not None:
            os.close(entry.handle)
    return found


def test_every_regular_file_is_found_in_order(tmp_path):
    for name in ("b/2", "a", "b/1", "clinical.csv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    assert list(names(tmp_path, skip="clinical.csv")) == ["a", "b/1", "b/2"]


def test_links_and_devices_are_not_followed(tmp_path):
    source, outside = tmp_path / "source", tmp_path / "outside"
    source.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (source / "file").symlink_to(outside / "secret")
    (source / "folder").symlink_to(outside)
    (source / "loop").symlink_to(source)
    os.mkfifo(source / "pipe")
    assert names(source) == dict.fromkeys(["file", "folder", "loop", "pipe"], Exclusion.NOT_A_FILE)


def test_a_source_that_is_a_link_or_missing_is_refused_without_naming_it(tmp_path):
    (tmp_path / "Hartog").symlink_to(tmp_path)
    for source in ("Hartog", "missing-Hartog"):
        with pytest.raises(UsageFault) as caught:
            names(tmp_path / source)
        assert "Hartog" not in str(caught.value)


def test_a_file_over_the_limit_is_not_read(tmp_path):
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(folder.MAX_FILE_BYTES + 1)  # sparse
    assert names(tmp_path) == {"huge": Exclusion.TOO_LARGE}


def test_folders_without_end_are_not_walked(tmp_path):
    path = tmp_path
    for _ in range(folder.MAX_DEPTH + 2):
        path = path / "d"
        path.mkdir()
    (path / "file").touch()
    assert list(names(tmp_path).values()) == [Exclusion.NOT_A_FILE]


def test_names_that_are_no_utf_8_are_read(tmp_path):
    with open(os.fsencode(tmp_path) + b"/M\xfcller", "wb") as file:
        file.write(b"x")
    assert list(names(tmp_path).values()) == [None]


@pytest.mark.parametrize(
    "path", ["../outside.csv", "/etc/passwd", "", "link/table.csv", "link.csv", "folder", "none.csv"]
)
def test_a_clinical_file_cannot_climb_out(tmp_path, path):
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True)
    (tmp_path / "table.csv").touch()
    (tmp_path / "outside.csv").touch()
    (source / "link").symlink_to(tmp_path)
    (source / "link.csv").symlink_to(tmp_path / "table.csv")
    with pytest.raises(UsageFault):
        folder.open_inside(str(source), path)
