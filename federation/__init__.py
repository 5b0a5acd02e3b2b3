"""The federation: a hospital's link to the hub, and the hub. Flower carries the rounds; our own channel the rest.

`client` (the link) and `hub` are strangers to each other; what they share stands in this folder.
"""
