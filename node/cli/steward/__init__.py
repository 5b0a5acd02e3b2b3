"""Commands of the data steward: data, permits, analyses, the airlock, `cloister deid`."""
