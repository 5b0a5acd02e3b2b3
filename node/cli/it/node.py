"""`cloister node`: what hospital IT and the data steward do, and where each command stands."""

from __future__ import annotations

from node.cli.parts import Part

PARTS = {
    "enrol": Part("it.enrol", "app", "Enrol at a hub: six words by telephone, or two files."),
    "dataset": Part("steward.imports", "app", "Published dataset versions, and imports on their way."),
    "permit": Part("steward.permits", "permits", "Permits: see what was granted, accept it for this hospital."),
    "run": Part("it.status", "runs", "Runs that asked this hospital, and what they were charged."),
    "job": Part("it.jobs", "app", "Tasks given to containers."),
    "image": Part("it.images", "app", "Container images this hospital lets run."),
    "analysis": Part("steward.airlock", "analysis", "Analyses that run at this hospital alone."),
    "airlock": Part("steward.airlock", "airlock", "Files of analyses: see them, review them, hand them out."),
    "audit": Part("it.log", "audit", "The audit log of a running node."),
    "clock": Part("it.log", "clock", "The clock that the audit log is written by."),
    "ingest": Part("steward.data", "ingest"),
    "import": Part("steward.data", "import_document"),
    "pause": Part("it.pause", "pause"),
    "resume": Part("it.pause", "resume"),
    "set-aside": Part("it.set_aside", "set_aside"),
    "init": Part("it.lifecycle", "init"),
    "serve": Part("it.lifecycle", "serve"),
    "guard": Part("it.lifecycle", "guard", hidden=True),
    "process": Part("it.lifecycle", "process", hidden=True),
    "status": Part("it.status", "status"),
    "canary": Part("it.status", "canary"),
    "self-test": Part("it.status", "self_test"),
    "ledger": Part("it.status", "list_runs"),
    "units": Part("it.units", "node_units"),
}
