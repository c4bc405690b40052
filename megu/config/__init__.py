"""The one configuration, ``params.yaml``: `tree` reads and checks all of it, `explained` describes its keys, `redaction`
redacts what names samples.
Needs no torch; only the rooms that compose a program import it.
"""
