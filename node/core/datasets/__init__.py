"""Datasets: orders to intake, and what it hands over, published as immutable versions."""
