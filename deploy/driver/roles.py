"""The processes of a node, as whoever gives each a user of its own counts them."""

ROLES = ("core", "intake", "broker", "link")
