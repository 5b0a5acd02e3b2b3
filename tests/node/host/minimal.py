"""The least that a node's configuration may say."""

MINIMAL = f"""
site = "north"
state_dir = "/var/lib/cloister"
[hub]
host = "hub.example"
port = 9443
[engine]
sentinel = "sha256:{"1" * 64}"
"""
