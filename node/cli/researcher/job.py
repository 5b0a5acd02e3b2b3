"""`cloister job`: what a researcher does, on a machine of their own, and where each command stands."""

from __future__ import annotations

from node.cli.parts import Part

PARTS = {
    "new": Part("researcher.job_kit", "new"),
    "build": Part("researcher.job_kit", "build"),
    "test": Part("researcher.job_kit", "test"),
    "init-model": Part("researcher.job_initial", "init_model"),
    "order": Part("researcher.order", "order"),
}
