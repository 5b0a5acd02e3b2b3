"""What an import handed over becomes a version: the studies core has taken, and the clinical table."""

from __future__ import annotations

import hashlib

from mediator import canonical
from mediator.datasets import CLINICAL, account_of
from mediator.errors import IntegrityBroken, UsageFault
from mediator.manifests import ManifestV2
from node.core.context import Core
from node.core.datasets.publish import folder_of, publish_version
from node.core.records import ImportRow
from node.host.versions import read_report


def publish_import(core: Core, row: ImportRow) -> tuple[ManifestV2, str, str]:
    """Make the version; its manifest, the manifest's hash, and its folder. `core.datasets_lock` is held.

    An import that a newer version of Cloister continued mixes what both made, and its manifest says so: the originals
    of what the older one made are gone. Raises `IntegrityBroken` where the account is not of the studies taken.
    """
    handover = core.folders.handover / row.name
    report = read_report(handover)
    with core.store.read() as snapshot:
        taken = snapshot.import_studies(row.name)
        known = {each.dataset_version: each for each in snapshot.dataset_versions()}
    told = sorted((each.study, each.patient, each.split, each.instances) for each in report.studies)
    if told != [(each.study, each.patient, each.split, each.instances) for each in taken]:
        raise IntegrityBroken("an import's account is not of the studies that were taken")
    older = [each for each in known.values() if each.dataset == row.dataset and not each.withdrawn]
    manifest = publish_version(
        account_of(report),
        taken,
        {CLINICAL: handover / CLINICAL},
        core.folders.datasets,
        created=core.clock(),
        supersedes=older[-1].dataset_version if older else None,
        mixed=True,
    )
    before = known.get(manifest.dataset_version)
    if before is not None and before.withdrawn is not None:
        raise UsageFault("exactly this version was published before, and withdrawn")
    return manifest, hashlib.sha256(canonical.encode(manifest)).hexdigest(), folder_of(manifest)
