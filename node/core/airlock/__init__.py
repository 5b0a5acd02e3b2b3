"""Analyses at this hospital, and the files that wait for a person's review."""
