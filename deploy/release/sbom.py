"""A release's bill of materials (CycloneDX 1.6, JSON): our wheel, its packages, Debian's, the images with theirs."""

from __future__ import annotations

import email
import hashlib
import json
import uuid
import zipfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from deploy.release.debs import name_and_version
from deploy.release.images import Archived
from deploy.release.pack import Release, sha256_of
from deploy.release.wheels import project_of

Component = dict[str, Any]
_OURS = uuid.uuid5(uuid.NAMESPACE_OID, "cloister.release")


def write(
    path: Path, release: Release, wheels: Iterable[Path], debs: Iterable[Path], images: Iterable[Archived]
) -> None:
    """Write the bill: sorted, with the commit's time, and a serial number that follows from what it says."""
    found = [_wheel(wheel) for wheel in wheels]
    (ours,) = [component for component in found if component["name"] == "cloister"]
    system = release.systems[0]
    parts = [
        *(component for component in found if component is not ours), *(_deb(deb, system) for deb in debs),
        *(_image(image) for image in images),
    ]  # fmt: skip
    parts.sort(key=lambda component: str(component["bom-ref"]))
    when = datetime.fromtimestamp(release.made_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    made = {"name": "cloister.commit", "value": release.commit}
    bill: dict[str, Any] = {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": {"timestamp": when, "component": ours | {"type": "application"}, "properties": [made]},
        "components": parts,
        "dependencies": [{"ref": ours["bom-ref"], "dependsOn": [component["bom-ref"] for component in parts]}],
    }  # fmt: skip
    said = json.dumps(bill, sort_keys=True)
    bill["serialNumber"] = uuid.uuid5(_OURS, hashlib.sha256(said.encode()).hexdigest()).urn
    path.write_text(json.dumps(bill, sort_keys=True, indent=1) + "\n", "utf-8")


def _component(purl: str, kind: str, name: str, version: str, sha256: str | None) -> Component:
    hashes = {"hashes": [{"alg": "SHA-256", "content": sha256}]} if sha256 else {}
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl} | hashes


def _wheel(wheel: Path) -> Component:
    name, version = project_of(wheel)
    component = _component(f"pkg:pypi/{name}@{quote(version)}", "library", name, version, sha256_of(wheel))
    with zipfile.ZipFile(wheel) as file:
        inside = [name for name in file.namelist() if name.count("/") == 1]
        (metadata,) = [name for name in inside if name.endswith(".dist-info/METADATA")]
        said = email.message_from_bytes(file.read(metadata))
    # core metadata 2.4 has an SPDX expression, older ones have free text, which may be a whole licence
    if expression := said["License-Expression"]:
        component["licenses"] = [{"expression": str(expression)}]
    elif (text := str(said["License"] or "").strip()) and "\n" not in text and len(text) <= 100:
        component["licenses"] = [{"license": {"name": text}}]
    return component


def _debian(name: str, version: str, system: str) -> str:
    return f"pkg:deb/{system.partition('-')[0]}/{name}@{quote(version)}?arch=amd64&distro={system}"


def _deb(deb: Path, system: str) -> Component:
    name, version = name_and_version(deb)
    return _component(_debian(name, version, system), "library", name, version, sha256_of(deb))


def _image(image: Archived) -> Component:
    """An image with what its own package managers say is in it; each part's reference begins with the image's."""
    digest = image.facts.image
    whole = _component(f"pkg:oci/{image.name}@{quote(digest)}", "container", image.name, digest, sha256_of(image.path))
    parts = []
    for package in image.facts.packages:
        if package.kind in ("deb", "python"):
            purl = (
                _debian(package.name, package.version, "debian-12") if package.kind == "deb"
                else f"pkg:pypi/{package.name.lower()}@{quote(package.version)}"
            )  # fmt: skip
            part = _component(purl, "library", package.name, package.version, None)
            parts.append(part | {"bom-ref": f"{whole['bom-ref']}#{purl}"})
    return whole | {"components": parts}
