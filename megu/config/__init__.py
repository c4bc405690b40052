"""The one configuration, ``params.yaml``: `tree` reads and checks all of it, `explained` says what its keys mean, `redaction`
keeps apart what names samples.
Needs no torch; no other room but the ones that compose a program imports it.
"""
