"""Subjects: which person each sample of a data set is of, so that a request of one finds all of theirs.

`table` what a team writes · `store` keyed hashes of it, a file a data set · `search` a person's samples in every data set.
"""
