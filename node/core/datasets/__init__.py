"""Datasets: studies that stand once, immutable versions over them, and taking them away again."""
