"""Commands of the hub's coordinator: `cloister hub`."""
