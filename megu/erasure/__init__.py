"""Erasure on every surface: where traces of the forgotten samples lie, what is erased, what stays and until when, and the proof.

`search` searches files of any kind · `forgotten` the samples to search for · `policy` what becomes of what is found · `plan` the
decisions, without acting · `journal` what survives a kill · `act` carries the plan out on files · `run` all of it. The surfaces of a
project and the signed verdict, which verifying a run needs too, are in `megu.lineage.purged`.
"""
