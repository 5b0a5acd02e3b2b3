"""Commands of a researcher: `cloister job`."""
