"""Image archives: what an honest one tells, and every dishonest one refused without a file written."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from containers.archive import Archived, read_file, read_stream, rebuilt
from containers.blobs import ArchiveLimits
from mediator.errors import CloisterError, IntegrityBroken, Malformed, UsageFault
from mediator.images import Package
from tests.sim import images
from tests.sim.images import (
    BASE,
    CYCLONE,
    DIST,
    METADATA,
    SPDX,
    Tiny,
    descriptor,
    layer,
    member,
    sha,
    tar,
    unfold,
    write,
)

SMALL = ArchiveLimits(
    unpacked_bytes=32 << 20, members=50, layer_entries=200, ratio=20, free_bytes=1 << 20, kept_bytes=1 << 20
)
PACKAGES = (Package("deb", "libc6", "2.36-9"), Package("python", "numpy", "2.1.0"))


def read(path: Path, **more: Any) -> tuple[Archived, ...]:
    return read_file(path, architecture="amd64", limits=SMALL, **more)


def one(path: Path) -> Archived:
    (found,) = read(path)
    return found


def refused(tmp_path: Path, raw: bytes, kind: type[CloisterError] = Malformed, says: str = "") -> None:
    """Refused with this class, without anything written beside it."""
    path = tmp_path / "hostile.tar"
    path.write_bytes(raw)
    with pytest.raises(kind) as caught:
        read(path)
    assert type(caught.value) is kind and says in caught.value.message, caught.value
    assert [each.name for each in tmp_path.iterdir()] == ["hostile.tar"]


def packed(members: dict[str, bytes], *more: tuple[Any, bytes]) -> bytes:
    return tar([*(member(name, content) for name, content in members.items()), *more])


# ---- honest ones


def test_a_docker_archive_tells_what_is_in_it(tmp_path: Path) -> None:
    tiny = Tiny()
    facts = one(write(tmp_path / "a.tar", tiny.saved())).facts
    assert (facts.image, facts.manifest, facts.origin, facts.names) == (tiny.id, None, "archive", tuple(tiny.tags))
    assert facts.packages == PACKAGES and facts.unread == () and facts.sboms == ()
    assert facts.parsed.entrypoint == ("/bin/true",)
    named = {name for name in facts.parsed.settings if name.startswith("environment")}
    assert named == {"environment PATH", "environment TOKEN"}
    assert [(each.diff_id, each.size_bytes) for each in facts.layers] == [
        (f"sha256:{sha(tiny.layers[0])}", len(tiny.layers[0]))
    ]


@pytest.mark.parametrize("packing", ["", "gzip", "zstd"])
@pytest.mark.parametrize("form", ["file", "folder", "gzipped"])
def test_an_oci_layout_tells_the_same(tmp_path: Path, packing: str, form: str) -> None:
    tiny = Tiny(packing=packing)
    members = tiny.laid_out()
    if form == "folder":
        path = unfold(tmp_path / "layout", members)
    else:
        path = write(tmp_path / "layout.tar", members)
        if form == "gzipped":
            path.write_bytes(gzip.compress(path.read_bytes()))
    facts = one(path).facts
    assert facts.image == tiny.id and facts.manifest == f"sha256:{sha(tiny.manifest)}"
    assert facts.packages == PACKAGES and facts.names == ("tiny:1",)
    assert facts.layers[0].digest == f"sha256:{sha(tiny.blobs()[0])}"


def test_what_docker_saves_today_is_both_at_once(tmp_path: Path) -> None:
    tiny = Tiny()
    entry = {
        "Config": f"blobs/sha256/{sha(tiny.config)}", "RepoTags": tiny.tags,
        "Layers": [f"blobs/sha256/{sha(each)}" for each in tiny.layers],
    }  # fmt: skip
    elsewhere = descriptor(b"an image for another machine, which the engine does not hold")
    members = tiny.laid_out(entries=[elsewhere]) | {"manifest.json": json.dumps([entry]).encode()}
    facts = one(write(tmp_path / "a.tar", members)).facts
    assert (facts.image, facts.manifest, facts.names) == (tiny.id, f"sha256:{sha(tiny.manifest)}", tuple(tiny.tags))


def test_several_images_of_one_archive_are_all_told(tmp_path: Path) -> None:
    first, second = Tiny(), Tiny(inner={"Cmd": ["sh"]}, tags=["other:2"])
    members = first.saved() | second.saved()
    members["manifest.json"] = json.dumps([first.entry(), second.entry()]).encode()
    assert [each.facts.image for each in read(write(tmp_path / "a.tar", members))] == [first.id, second.id]


def test_of_an_image_for_several_machines_the_one_for_this_is_taken(tmp_path: Path) -> None:
    here, there = Tiny(), Tiny(outer={"architecture": "s390x"})
    beside = [there.config, there.manifest, *there.blobs()]
    both = here.laid_out(beside=beside, entries=[descriptor(there.manifest)])
    assert one(write(tmp_path / "a.tar", both)).facts.image == here.id
    nested = Tiny().laid_out(beside=beside)
    index = json.dumps({"manifests": [descriptor(here.manifest), descriptor(there.manifest)]}).encode()
    nested[f"blobs/sha256/{sha(index)}"] = index
    nested["index.json"] = json.dumps({"manifests": [descriptor(index)]}).encode()
    assert one(write(tmp_path / "b.tar", nested)).facts.image == here.id
    with pytest.raises(Malformed, match="none for arm64"):
        read_file(tmp_path / "b.tar", architecture="arm64", limits=SMALL)


def test_a_layer_that_two_images_share_may_be_a_link_in_the_archive(tmp_path: Path) -> None:
    tiny = Tiny()
    other = {**tiny.entry(), "Layers": [f"{'a' * 64}/layer.tar"]}
    members = tiny.saved() | {"manifest.json": json.dumps([other]).encode()}
    link = member(f"{'a' * 64}/layer.tar", kind=tarfile.SYMTYPE, target=f"../{sha(tiny.layers[0])}/layer.tar")
    (tmp_path / "a.tar").write_bytes(packed(members, link))
    assert one(tmp_path / "a.tar").facts.image == tiny.id


def test_what_podman_saves_is_read(tmp_path: Path) -> None:
    tiny = Tiny()
    name = sha(tiny.layers[0])
    entry = {"Config": f"{sha(tiny.config)}.json", "RepoTags": [], "Layers": [f"{name}.tar"]}
    members = {f"{name}.tar": tiny.layers[0], f"{sha(tiny.config)}.json": tiny.config, "repositories": b"{}"}
    members |= {f"{'b' * 64}/VERSION": b"1.0", "manifest.json": json.dumps([entry]).encode()}
    link = member(f"{'b' * 64}/layer.tar", kind=tarfile.SYMTYPE, target=f"../{name}.tar")
    (tmp_path / "a.tar").write_bytes(packed(members, link))
    assert one(tmp_path / "a.tar").facts.image == tiny.id


def test_whiteouts_and_links_hide_what_lower_layers_brought(tmp_path: Path) -> None:
    def seen(*upper: bytes) -> set[str]:
        tiny = Tiny(layers=[layer(BASE), *upper])
        return {each.name for each in one(write(tmp_path / "a.tar", tiny.saved())).facts.packages}

    folder = DIST.rpartition("/")[0]
    assert seen() == {"libc6", "numpy"}
    assert seen(layer({"var/lib/dpkg/.wh.status": b""})) == {"numpy"}
    assert seen(layer({"usr/lib/.wh.python3": b""})) == {"libc6"}
    assert seen(layer({"usr/lib/python3/.wh..wh..opq": b""})) == {"libc6"}
    assert seen(tar([member(folder, kind=tarfile.SYMTYPE, target="/elsewhere")])) == {"libc6"}
    assert seen(layer({"./usr/lib/.wh.python3": b""}), layer({DIST: METADATA})) == {"libc6", "numpy"}
    assert seen(layer({"etc/.wh..wh..opq": b"", "usr/lib/.wh.python": b""})) == {"libc6", "numpy"}


def test_other_package_managers_are_read_and_what_cannot_be_is_named(tmp_path: Path) -> None:
    upper = {
        "lib/apk/db/installed": b"C:Q1\nP:musl\nV:1.2.5-r0\n\nP:zlib\nV:1.3\n",
        "opt/conda/conda-meta/torch-2.9-py.json": b'{"name": "torch", "version": "2.9", "files": []}',
        "opt/conda/conda-meta/broken.json": b"{",
        "var/lib/rpm/rpmdb.sqlite": b"SQLite format 3",
        "var/lib/dpkg/status.d/tzdata": b"Package: tzdata\nVersion: 2026a\n",
        "usr/local/share/sbom/base.spdx.json": SPDX,
        "usr/share/sbom/app.json": CYCLONE,
        "usr/share/sbom/strange.json": b"[]",
    }
    link = tar([member("opt/x-1.dist-info/METADATA", kind=tarfile.LNKTYPE, target="opt/y")])
    facts = one(write(tmp_path / "a.tar", Tiny(layers=[layer(BASE), layer(upper), link]).saved())).facts
    assert {f"{each.kind} {each.name} {each.version}" for each in facts.packages} == {
        "deb libc6 2.36-9", "python numpy 2.1.0", "apk musl 1.2.5-r0", "apk zlib 1.3", "conda torch 2.9",
        "deb tzdata 2026a",
    }  # fmt: skip
    assert facts.unread == (
        "opt/conda/conda-meta/broken.json", "opt/x-1.dist-info/METADATA", "usr/share/sbom/strange.json",
        "var/lib/rpm/rpmdb.sqlite",
    )  # fmt: skip
    assert [(each.format, each.format_version, each.packages, each.where) for each in facts.sboms] == [
        ("cyclonedx", "1.5", 1, "/usr/share/sbom/app.json"),
        ("spdx", "SPDX-2.3", 3, "/usr/local/share/sbom/base.spdx.json"),
    ]


@pytest.mark.parametrize("way", ["attestation", "referrer"])
def test_a_bill_of_materials_attached_to_the_image_is_found_and_one_for_another_is_not(
    tmp_path: Path, way: str
) -> None:
    tiny = Tiny()
    bill = json.dumps({"_type": "in-toto", "predicate": json.loads(SPDX)}).encode() if way == "attestation" else CYCLONE

    def layout(about: str) -> dict[str, bytes]:
        plain: dict[str, Any] = {"config": descriptor(b"{}"), "layers": [descriptor(bill)]}
        if way == "referrer":
            plain["subject"] = {"digest": about}
        manifest = json.dumps(plain).encode()
        entry = descriptor(manifest)
        if way == "attestation":
            entry["annotations"] = {"vnd.docker.reference.digest": about}
        return tiny.laid_out(beside=[bill, manifest], entries=[entry])

    facts = one(write(tmp_path / "a.tar", layout(f"sha256:{sha(tiny.manifest)}"))).facts
    assert [(each.where, each.sha256, each.packages) for each in facts.sboms] == [
        ("attached", sha(bill), 3 if way == "attestation" else 1)
    ]
    assert one(write(tmp_path / "b.tar", layout(f"sha256:{'0' * 64}"))).facts.sboms == ()


@pytest.mark.parametrize("packing", ["", "gzip", "zstd"])
def test_what_is_loaded_is_made_anew_and_holds_nothing_but_what_was_verified(tmp_path: Path, packing: str) -> None:
    tiny = Tiny(packing=packing, layers=[layer(BASE), layer({"a": b"b" * 1000})])
    path = write(tmp_path / "a.tar", tiny.laid_out() | {"stowaway": b"x", "repositories": b"{}"})
    again = b"".join(rebuilt(path, read(path)))
    with tarfile.open(fileobj=io.BytesIO(again)) as archive:
        names = set(archive.getnames())
        manifest = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert names == {*(f"{sha(each)}/layer.tar" for each in tiny.layers), f"{sha(tiny.config)}.json", "manifest.json"}
    assert manifest[0]["RepoTags"] is None, "a tag of theirs could take the place of one of ours"
    (tmp_path / "b.tar").write_bytes(again)
    assert one(tmp_path / "b.tar").facts.image == tiny.id


def test_an_archive_exchanged_between_reading_and_loading_is_not_loaded(tmp_path: Path) -> None:
    tiny = Tiny()
    path = write(tmp_path / "a.tar", tiny.saved())
    found = read(path)
    other = layer({**BASE, "bin/true": b"EVIL"})
    write(path, {f"{sha(tiny.layers[0])}/layer.tar": other})
    with pytest.raises(IntegrityBroken, match="changed"):
        b"".join(rebuilt(path, found))
    write(path, {"nothing": b""})
    with pytest.raises(IntegrityBroken, match="changed"):
        b"".join(rebuilt(path, found))


def test_an_engines_stream_is_read_in_one_pass(tmp_path: Path) -> None:
    raw = write(tmp_path / "a.tar", Tiny().saved()).read_bytes()
    (found,) = read_stream(io.BytesIO(raw), architecture="amd64")
    assert found.facts == replace(one(tmp_path / "a.tar").facts, origin="engine")


def test_progress_is_told_in_bytes(tmp_path: Path) -> None:
    path, told = write(tmp_path / "a.tar", Tiny().saved()), []
    read(path, progress=told.append)
    assert sum(told) >= path.stat().st_size - 10240  # the tar file's padding needs no reading


# ---- attacks: the archive itself


@pytest.mark.parametrize(
    "name", ["../../etc/cron.d/x", "/etc/passwd", "blobs/../../x", "a//b", "a/./b", "esc\x1b[2J", "line\nbreak"]
)
def test_a_member_that_would_leave_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    refused(tmp_path, packed(Tiny().saved(), member(name, b"x")), says="name that leaves")


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc/shadow"), (tarfile.SYMTYPE, "../../../layer.tar"), (tarfile.LNKTYPE, "manifest.json"),
        (tarfile.CHRTYPE, ""), (tarfile.BLKTYPE, ""), (tarfile.FIFOTYPE, ""),
    ],
)  # fmt: skip
def test_links_and_devices_among_the_members_are_refused(tmp_path: Path, kind: bytes, target: str) -> None:
    refused(tmp_path, packed(Tiny().saved(), member("layer.tar", kind=kind, target=target)), says="link or a device")


def test_a_member_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    members = Tiny().saved()
    refused(tmp_path, packed(members, member("manifest.json", members["manifest.json"])), says="twice")
    refused(tmp_path, packed(members, member("./manifest.json", b"[]")), says="twice")


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("form", ["saved", "laid_out"])
def test_a_truncated_archive_is_refused(tmp_path: Path, form: str, keep: float) -> None:
    raw = packed(getattr(Tiny(), form)())
    whole = raw.rstrip(b"\0")
    refused(tmp_path, whole[: int(len(whole) * keep)])


@pytest.mark.parametrize("raw", [b"", b"x", bytes(10240), b"\x1f\x8bgarbage", b"(\xb5/\xfdgarbage" * 90, b"{}" * 900])
def test_what_is_no_archive_is_refused(tmp_path: Path, raw: bytes) -> None:
    refused(tmp_path, raw)


def test_more_members_than_any_archive_has_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, packed({f"f{number}": b"" for number in range(60)}), says="more than 50 members")


def test_a_name_of_a_gigabyte_fills_no_memory(tmp_path: Path) -> None:
    """Python's own tar reader reads an extended header whole, whatever size it claims."""
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.XHDTYPE, 1 << 33
    tracemalloc.start()
    refused(tmp_path, entry.tobuf(tarfile.GNU_FORMAT) + bytes(4096), says="name")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_sparse_file_is_refused(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("x")
    entry.type = tarfile.GNUTYPE_SPARSE
    refused(tmp_path, entry.tobuf(tarfile.GNU_FORMAT) + bytes(4096), says="sparse")


@pytest.mark.parametrize("kind", ["pipe", "device", "missing", "folder with a link", "folder with a pipe"])
def test_what_is_no_plain_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind.startswith("folder"):
        unfold(path, Tiny().laid_out())
        (path / "blobs/sha256/x").symlink_to("/etc/passwd") if "link" in kind else os.mkfifo(path / "blobs/sha256/x")
    with pytest.raises(UsageFault):
        read(path)


# ---- attacks: digests and manifests


def tampered(members: dict[str, bytes], name: str) -> dict[str, bytes]:
    raw = bytearray(members[name])
    raw[len(raw) // 2] ^= 1
    return {**members, name: bytes(raw)}


@pytest.mark.parametrize("what", ["config", "manifest", "layer"])
def test_a_blob_that_is_not_what_its_name_says_is_refused(tmp_path: Path, what: str) -> None:
    tiny = Tiny(packing="gzip")
    name = {"config": sha(tiny.config), "manifest": sha(tiny.manifest), "layer": sha(tiny.blobs()[0])}[what]
    members = tiny.laid_out()
    members[f"blobs/sha256/{name}"] = members[f"blobs/sha256/{name}"][:-1] + b"X" if what != "layer" else layer(BASE)
    refused(tmp_path, packed(members), IntegrityBroken, "not what its name says")


def test_a_docker_archives_configuration_under_another_digest_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, packed(tampered(Tiny().saved(), f"{sha(Tiny().config)}.json")), IntegrityBroken, "its name says")


def lying(change: Callable[[dict[str, Any]], Any]) -> bytes:
    """A docker archive whose manifest.json was changed."""
    tiny = Tiny(layers=[layer(BASE), layer({"x": b"y"})])
    members, entry = tiny.saved(), tiny.entry()
    change(entry)
    return packed(members | {"manifest.json": json.dumps([entry]).encode()})


def test_a_manifest_that_leaves_a_layer_out_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, lying(lambda entry: entry["Layers"].pop()), says="layers are not those")


def test_a_manifest_that_swaps_layers_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, lying(lambda entry: entry["Layers"].reverse()), says="layers are not those")


def test_a_manifest_that_names_what_is_not_there_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, lying(lambda entry: entry["Layers"].append("f" * 64 + "/layer.tar")), says="not there")
    refused(tmp_path, lying(lambda entry: entry.update(Config="../../etc/passwd")), says="not there")


@pytest.mark.parametrize("value", [None, 3, [3], {"a": 1}, "x" * 9, ["x"] * 600])
def test_a_manifest_with_something_else_for_its_layers_is_refused(tmp_path: Path, value: Any) -> None:
    refused(tmp_path, lying(lambda entry: entry.update(Layers=value)))


@pytest.mark.parametrize("raw", [b"[]", b"{}", b"[1]", b"nonsense", b'[{"a": 1, "a": 2}]', b"[" * 100_000])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, raw: bytes) -> None:
    refused(tmp_path, packed(Tiny().saved() | {"manifest.json": raw}))


def test_two_indexes_that_name_different_images_are_refused(tmp_path: Path) -> None:
    """Engines of different ages read one or the other."""
    shown, hidden = Tiny(), Tiny(inner={"Entrypoint": ["/bin/evil"]})
    refused(tmp_path, packed(shown.saved() | hidden.laid_out()), says="different images")


@pytest.mark.parametrize("size", [0, 1, -1, None, "12"])
def test_a_descriptor_with_another_size_is_refused(tmp_path: Path, size: Any) -> None:
    members = Tiny().laid_out()
    index = json.loads(members["index.json"])
    index["manifests"][0]["size"] = size
    refused(tmp_path, packed(members | {"index.json": json.dumps(index).encode()}), IntegrityBroken, "another size")


def test_an_index_that_holds_itself_ends(tmp_path: Path) -> None:
    members = Tiny().laid_out()
    wheel: dict[str, bytes] = {}
    inner = members["index.json"]
    for _ in range(6):
        wheel[f"blobs/sha256/{sha(inner)}"] = inner
        inner = json.dumps({"manifests": [descriptor(inner)]}).encode()
    refused(tmp_path, packed(members | wheel | {"index.json": inner}), says="index")


# ---- attacks: layers


@pytest.mark.parametrize("name", ["../../etc/passwd", "usr/../../x", "a/" * 300 + "b"])
def test_a_layer_with_a_name_that_leaves_its_root_is_refused(tmp_path: Path, name: str) -> None:
    refused(tmp_path, packed(Tiny(layers=[layer({name: b"x"})]).saved()), says="leaves its root")


def test_a_layer_that_is_no_tar_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, packed(Tiny(layers=[b"not a tar file at all" * 99]).saved()), says="a layer cannot be read")


def test_a_layer_with_a_damaged_header_is_refused(tmp_path: Path) -> None:
    raw = bytearray(layer({"a": b"x" * 600, "b": b"y"}))
    raw[512 + 1024 + 3] ^= 1
    refused(tmp_path, packed(Tiny(layers=[bytes(raw)]).saved()), says="damaged header")


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_decompression_bomb_is_refused_before_it_has_gone_off(tmp_path: Path, packing: str) -> None:
    bomb = layer({"zeros": bytes(24 << 20)})
    tracemalloc.start()
    refused(tmp_path, packed(Tiny(layers=[bomb], packing=packing).laid_out()), says="more than 20 times")
    tracemalloc.stop()


def test_a_bomb_around_the_whole_archive_is_refused(tmp_path: Path) -> None:
    raw = gzip.compress(packed(Tiny(layers=[layer({"zeros": bytes(24 << 20)})]).saved()))
    refused(tmp_path, raw, says="more than 20 times")


def test_gigantic_layers_are_refused(tmp_path: Path) -> None:
    layers = [layer({f"{number}": bytes(12 << 20)}) for number in range(3)]
    refused(tmp_path, packed(Tiny(layers=layers).saved()), says="unpacks to more than")


def test_a_layer_with_more_files_than_any_has_is_refused(tmp_path: Path) -> None:
    many = layer({f"f{number}": b"" for number in range(210)})
    refused(tmp_path, packed(Tiny(layers=[many]).saved()), says="more than 200 members")


def test_more_documents_than_fit_into_memory_are_not_kept(tmp_path: Path) -> None:
    tiny = Tiny()
    (tmp_path / "a.tar").write_bytes(packed({**tiny.laid_out(), "big.json": b'{"a":"' + b"x" * (2 << 20) + b'"}'}))
    assert one(tmp_path / "a.tar").facts.image == tiny.id
    long = Tiny(inner={"Entrypoint": ["x"], "Labels": {"a": "x" * 300_000}})
    refused_path = tmp_path / "b"
    refused_path.mkdir()
    refused(refused_path, packed(long.saved()), says="too long")


def test_a_truncated_packed_layer_is_refused(tmp_path: Path) -> None:
    tiny = Tiny(packing="gzip")
    cut = tiny.blobs()[0][:-20]
    manifest = json.loads(tiny.manifest)
    manifest["layers"] = [descriptor(cut)]
    raw = json.dumps(manifest).encode()
    members = tiny.laid_out(beside=[cut, raw])
    members["index.json"] = json.dumps({"manifests": [descriptor(raw)]}).encode()
    refused(tmp_path, packed(members), says="damaged or cut off")


def test_a_text_that_would_move_the_cursor_is_made_visible(tmp_path: Path) -> None:
    status = "Package: evil\x1b[2J\u202e\nStatus: install ok installed\nVersion: 1\x07\n".encode()
    tiny = Tiny(layers=[layer({"var/lib/dpkg/status": status})], tags=["a\x1b[31m:1"],
                inner={"Entrypoint": ["/bin/\x1b]0;x\x07"], "Labels": {"a\n": "b\r\u202e"}})  # fmt: skip
    facts = one(write(tmp_path / "a.tar", tiny.saved())).facts
    shown = [*facts.names, *facts.parsed.entrypoint, *facts.parsed.labels, *facts.parsed.labels.values()]
    shown += [text for each in facts.packages for text in (each.name, each.version)]
    assert all(text.isprintable() for text in shown) and "\\x1b[2J\\u202e" in facts.packages[0].name


def test_a_layers_tar_may_be_written_by_any_honest_tool(tmp_path: Path) -> None:
    long = "deep/" * 30 + "numpy-2.1.0.dist-info/METADATA"
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as archive:
            entry, content = member(long if form != tarfile.USTAR_FORMAT else long[-150:].lstrip("/"), METADATA)
            archive.addfile(entry, io.BytesIO(content))
        facts = one(write(tmp_path / "a.tar", Tiny(layers=[out.getvalue()]).saved())).facts
        assert facts.packages == (Package("python", "numpy", "2.1.0"),), form
    assert images.layer({}) == bytes(10240) and one(write(tmp_path / "b.tar", Tiny(layers=[layer({})]).saved()))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(form=st.sampled_from(["saved", "laid_out"]), at=st.integers(0), flip=st.integers(1, 255), data=st.data())
def test_whatever_byte_is_changed_it_is_refused_or_still_the_same_image(
    tmp_path: Path, form: str, at: int, flip: int, data: st.DataObject
) -> None:
    tiny = Tiny(packing="gzip")
    raw = bytearray(packed(getattr(tiny, form)()))
    raw[at % len(raw)] ^= flip
    del raw[data.draw(st.integers(len(raw) // 2, len(raw))) :]
    (tmp_path / "a.tar").write_bytes(raw)
    try:
        found = read(tmp_path / "a.tar")
    except (Malformed, IntegrityBroken):
        return
    assert [(each.facts.image, each.facts.packages) for each in found] == [(tiny.id, PACKAGES)]
