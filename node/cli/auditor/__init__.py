"""Commands of an auditor: `cloister audit`."""
