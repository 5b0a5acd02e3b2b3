"""Commands of hospital IT: `cloister node`, `cloister check`."""
