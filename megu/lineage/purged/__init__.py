"""What a purge signed and where it looked, as verifying a run needs it.
The purge itself is `megu.erasure`, which depends on lineage and never the other way.
"""
