"""What every process of a node stands on: configuration, paths, the state folder, accounts, keys, logs."""
