"""Profiles that no hospital should write."""

from __future__ import annotations

from mediator.deid.profile import compile_profile, parse
from node.deid.engine import ProfileEngine
from node.deid.profiles import standard

# A site's own profile that keeps a comment as it stands: nothing but the residual check stands between it and outside
CARELESS = """
format = 1
name = "careless"
version = 1
title = "keeps comments"
scope = "project"
options = []
dates = "removed"
[elements]
PatientID = "pseudonym"
PatientName = "pseudonym"
PatientComments = "keep"
StationName = "keep"
[vr]
US = "keep"
UI = "replace-uid"
"""


def careless_engine() -> ProfileEngine:
    return ProfileEngine(compile_profile(parse(CARELESS), standard()), standard())
