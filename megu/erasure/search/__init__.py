"""Searching for erased samples in files of any kind: as they are, resized, re-encoded, packed.
Nothing here deletes.
"""
