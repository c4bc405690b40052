"""Erasure on every surface: what of the forgotten samples lies where, what goes, what stays and until when, and the proof.

`search` looks through files of any kind · `forgotten` the samples to look for · `policy` what becomes of what is found · `plan` the
decisions on paper · `journal` what survives a kill · `act` carries them out on files · `run` all of it. The surfaces of a project and the
signed verdict, which whoever verifies a run needs too, are in `megu.lineage.purged`.
"""
