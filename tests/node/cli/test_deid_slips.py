"""What can be seen to be wrong with a `cloister deid` command is told before a single file is read."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from mediator.errors import UsageFault
from node.cli.it.run_as import run_as
from node.deid.deidentify_folder import check_rooms
from node.deid.sinks import FolderSink
from tests.node.cli.deid_desk import cloister, key, options, plain_slice, put
from tests.sim.users import NOBODY

__all__ = ["cloister", "key"]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives folders to another user")


@pytest.fixture(autouse=True)
def source(tmp_path):
    """SRC with one slice that nobody can parse slower than at once, and what must not be read."""
    put(tmp_path / "src", "1", plain_slice())
    return tmp_path / "src"


def before(tmp_path) -> set[str]:
    return {str(path) for path in tmp_path.rglob("*")}


@pytest.mark.parametrize(
    ("target", "make", "says"),
    [
        ("src/1/dst", None, "inside each other"), ("site.key/dst", None, "DST cannot be written"),
        ("dst.report.jsonl", "folder", "reports beside DST"),
        ("dst.summary.json", "link", "reports beside DST"), ("dst", "file", "folders, not links"),
        ("dst.review", "link", "folders, not links"),
    ],
)  # fmt: skip
def test_a_dst_that_cannot_be_written_is_told_first(tmp_path, cloister, key, target, make, says):
    path = tmp_path / target
    if make == "folder":
        path.mkdir()
    elif make == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif make == "file":
        path.touch()
    there, dst = before(tmp_path), path if make is None else tmp_path / "dst"
    said = cloister("deid", "run", tmp_path / "src", dst, *options(key))
    assert said.code == 2 and says in said.err and said.err.count("error: ") == 1
    assert before(tmp_path) == there


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"profile": "eucain"}, "no such de-identification profile"),
        ({"site": "Alpha!"}, "--site"),
        ({"project": ""}, "--project"),
    ],
)
def test_profile_and_identifiers_are_asked_first(tmp_path, cloister, key, change, says):
    said = cloister("deid", "run", tmp_path / "src", tmp_path / "dst", *options(key, **change))
    assert said.code == 2 and says in said.err and not (tmp_path / "dst.report.jsonl").exists()


def test_a_source_of_links_alone_is_told(tmp_path, cloister, key):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "1").symlink_to(tmp_path / "src" / "1")
    said = cloister("deid", "run", tmp_path / "links", tmp_path / "dst", *options(key))
    assert said.code == 2 and "no file in SRC can be read" in said.err
    said = cloister("deid", "check", tmp_path / "links")
    assert said.code == 2 and "no file in SRC can be read" in said.err


@pytest.mark.parametrize(
    ("src", "dst", "more", "says"),
    [
        ("src", "empty", (), "DST is empty"), ("empty", "src", (), "SRC is empty"), ("src", "src", (), "inside each"),
        (".", "src", (), "inside each"), ("src", "none", (), "folders that can be read"),
        ("src", "dst", ("--project", "liver"), "belong to --key"), ("src", "dst", ("--profile", "x"), "no such"),
    ],
)  # fmt: skip
def test_verifying_nothing_is_no_good_news(tmp_path, cloister, src, dst, more, says):
    (tmp_path / "empty").mkdir()
    put(tmp_path / "dst", "1", plain_slice())
    said = cloister("deid", "verify", tmp_path / src, tmp_path / dst, *more)
    assert said.code == 2 and says in said.err, said


def test_a_store_of_pictures_seen_is_looked_at_before_any_is_decoded(tmp_path, cloister, key):
    for store in (tmp_path / "src", tmp_path / "absent" / "seen"):
        said = cloister("deid", "check", tmp_path / "src", "--key", key, "--seen", store)
        assert said.code == 2 and "--seen" in said.err and said.out == ""


@as_root
def test_a_folder_of_somebody_else_is_told_by_who_cannot_write_there():
    """Root may write everywhere: the question is asked as somebody who may not."""
    root = Path(tempfile.mkdtemp(prefix="cl-"))  # to which everybody may walk
    root.chmod(0o755)
    put(root / "src", "1", plain_slice())
    try:
        for made in ((), (root / "dst",)):
            for folder in made:
                folder.mkdir(mode=0o755)
            with pytest.raises(UsageFault, match="DST cannot be written"):
                run_as((NOBODY, NOBODY), lambda: str(check_rooms(root / "src", FolderSink(root / "dst"))))
        root.chmod(0o700)
        with pytest.raises(UsageFault, match="may not enter"):
            run_as((NOBODY, NOBODY), lambda: str(check_rooms(root / "src", FolderSink(root / "dst"))))
    finally:
        shutil.rmtree(root)


@pytest.mark.parametrize("what", ["key", "project", "site"])
def test_a_dst_made_with_other_pseudonyms_is_left_alone(tmp_path, cloister, key, what):
    source, output = tmp_path / "src", tmp_path / "dst"
    other = tmp_path / "other.key"
    other.write_bytes(bytes(32))
    other.chmod(0o600)
    assert cloister("deid", "run", source, output, *options(key)).code == 0
    there = before(tmp_path)
    given = {"key": options(other), "project": options(key, project="lung"), "site": options(key, site="beta")}[what]
    said = cloister("deid", "run", source, output, *given)
    assert said.code == 2 and f"made with another {what}" in said.err and before(tmp_path) == there
    assert cloister("deid", "run", source, output, *options(key)).code == 0
    shutil.rmtree(output)
    assert cloister("deid", "run", source, output, *given).code == 0
