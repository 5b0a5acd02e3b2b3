"""The process that carries: the hub on one side, core behind its socket on the other."""
