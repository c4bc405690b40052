"""Subjects: which person each sample of a data set belongs to, so that a request by a person finds all of theirs.

`table` what a team writes · `store` keyed hashes of it, one file per data set · `search` a person's samples in every data set.
"""
