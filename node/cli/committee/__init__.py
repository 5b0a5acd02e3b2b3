"""Commands of the Access Committee: `cloister permit`."""
