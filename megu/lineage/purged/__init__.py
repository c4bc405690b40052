"""What a purge signed and where it searched, as needed to verify a run.
The purge itself is `megu.erasure`, which depends on lineage, never the reverse.
"""
