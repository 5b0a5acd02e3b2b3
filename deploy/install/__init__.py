"""The installer: checks, questions, and a list of changes that can be told, made, and taken back.

The standard library alone, and nothing of Cloister: it runs before anything is installed.
"""
