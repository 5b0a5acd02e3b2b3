"""The link: a node's one process that speaks to the outside, and only to the hub."""
