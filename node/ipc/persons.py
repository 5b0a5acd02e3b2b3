"""The persons that a hospital's configuration knows, by the keys they sign with."""

from __future__ import annotations

from mediator.signatures import KeyRing, VerifyKey
from node.host.config import NodeConfig
from node.ipc.caller import Signers


def signers(config: NodeConfig) -> Signers:
    """Staff, reviewers and stewards. A steward whose key has no name here is called by its id."""
    stewards = config.trust.ring("stewards")
    named = {
        VerifyKey.from_text(each.public_key): each.subject for each in (*config.airlock.persons, *config.staff.persons)
    }
    persons = {key_id: key_id for key_id in stewards} | {key.key_id: subject for key, subject in named.items()}
    return Signers(KeyRing([*stewards.values(), *named]), persons)
