"""Files and folders that are written whole or not at all: the one way to write one. Depends on nothing of ours."""
