"""`cloister audit`: an audit log read and checked, and where each command stands."""

from __future__ import annotations

from node.cli.parts import Part

PARTS = {
    "show": Part("auditor.reading", "show_log"),
    "tail": Part("auditor.reading", "tail"),
    "search": Part("auditor.reading", "search"),
    "export": Part("auditor.reading", "export"),
    "prove": Part("auditor.prove", "prove"),
    "check-proof": Part("auditor.prove", "check_proof"),
    "verify": Part("auditor.verify", "verify"),
}
