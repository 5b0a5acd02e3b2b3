"""Imports: orders to intake, studies taken one by one, and what becomes of them as one version."""
