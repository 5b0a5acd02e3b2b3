"""Container images that this hospital lets run."""
