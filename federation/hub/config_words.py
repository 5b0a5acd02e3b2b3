"""What each key of a hub's configuration means: the words of its example and of `cloister config explain`."""

from __future__ import annotations

from collections.abc import Mapping

WORDS: Mapping[str, str] = {
    "version": "The form of this file.",
    "name": "A name for certificates and logs: a-z, 0-9, dot, dash, underscore.",
    "state_dir": "Database, certificate authority, keys, checkpoints. Relative to this file.",
    "ingress.listen": "The address of this machine that it listens at; 0.0.0.0 is every one.",
    "ingress.port": "The one port nodes reach, mutual TLS 1.3 only.",
    "ingress.hosts": "Names and addresses nodes may call it by; the first one goes into bundles.",
    "ingress.handshake_s": "Who has connected and shown no certificate yet is cut off after so many seconds.",
    "ingress.strangers": "Where so many such wait in all, the longest there gives way.",
    "ingress.strangers_per_address": (
        "Where so many such wait from one address (one /64 in IPv6), the longest there gives way. Behind an "
        "address that many hospitals share: more."
    ),
    "ingress.connections_per_site": "One site's connections; its newest ends its oldest. A node needs about ten.",
    "trust.committee_keys": (
        "Public keys of the Access Committee (64 hexadecimal digits, the .pub file). Only what they signed is "
        "passed on; every hospital checks again by its own list."
    ),
    "runs.minimum_sites": (
        "0: a round needs every site of the run order. A smaller number lets a round go on without those that "
        "never connect, go away, say no or send what is no reply, and stops the run where fewer are left. A run "
        "keeps the number it was submitted with."
    ),
    "runs.round_timeout_s": "How long one task may take at a site.",
    "runs.patience_s": (
        "How long a site that is paused or away is waited for, once: where the others are enough, no later task "
        "waits for it, and it takes part again as soon as it is back at the beginning of one."
    ),
    "runs.poll_s": "How often a run looks for replies, in seconds.",
}
