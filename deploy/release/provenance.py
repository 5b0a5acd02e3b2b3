"""Where a release comes from: an in-toto statement with SLSA's provenance predicate (v1), in a signed DSSE envelope."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.install.release_keys import ReleaseKey, signed
from deploy.release.failures import Stopped
from deploy.release.keys import SigningKey
from deploy.release.pack import Release, sha256_of
from deploy.release.tree import Tree

PAYLOAD = "application/vnd.in-toto+json"
STATEMENT, PREDICATE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:cloister:release:1"
_LOCKS = ("requirements/cloister.txt", "requirements/dev.txt", "pyproject.toml")


def statement(tree: Tree, release: Release, made: list[Path], checks: Mapping[str, str]) -> dict[str, Any]:
    """What was made, of which commit and locks, by which script with which answers. No name of a machine or person."""
    locks = [{"name": path, "digest": {"sha256": sha256_of(tree.folder / path)}} for path in _LOCKS]
    commit = {"uri": "urn:cloister:source", "digest": {"gitCommit": tree.commit}}
    return {
        "_type": STATEMENT,
        "subject": [{"name": path.name, "digest": {"sha256": sha256_of(path)}} for path in sorted(made)],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"version": release.version, "systems": list(release.systems)},
                "internalParameters": {"checks": dict(checks), "SOURCE_DATE_EPOCH": release.made_s},
                "resolvedDependencies": [commit, *locks],
            },
            "runDetails": {"builder": {"id": "urn:cloister:deploy/release.sh"}},
        },
    }


def _authenticated(payload: bytes) -> bytes:
    """DSSE v1's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload)


def write(path: Path, said: Mapping[str, Any], key: SigningKey) -> None:
    payload = json.dumps(said, sort_keys=True).encode("utf-8")
    signature = base64.b64encode(key.sign(_authenticated(payload))).decode("ascii")
    envelope = {
        "payloadType": PAYLOAD, "payload": base64.b64encode(payload).decode("ascii"),
        "signatures": [{"keyid": key.public.fingerprint, "sig": signature}],
    }  # fmt: skip
    path.write_text(json.dumps(envelope, sort_keys=True) + "\n", "utf-8")


def read(path: Path, keys: list[ReleaseKey]) -> dict[str, Any]:
    """The statement in an envelope that one of these keys signed. Raises `Stopped`."""
    try:
        envelope = json.loads(path.read_bytes())
        payload = base64.b64decode(envelope["payload"], validate=True)
        signatures = [base64.b64decode(each["sig"], validate=True) for each in envelope["signatures"]]
        right = envelope["payloadType"] == PAYLOAD
    except (ValueError, KeyError, TypeError):
        right, payload, signatures = False, b"", []
    text = _authenticated(payload)
    if not right or not any(signed(key, text, signature) for key in keys for signature in signatures):
        raise Stopped(f"{path.name} is not signed by a release key that is trusted here", "fetch it again", 4)
    found = json.loads(payload)
    if not isinstance(found, dict) or (found.get("_type"), found.get("predicateType")) != (STATEMENT, PREDICATE):
        raise Stopped(f"{path.name} is no provenance of SLSA's", "fetch it again", 4)
    return found
