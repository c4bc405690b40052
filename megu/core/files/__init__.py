"""Files that survive a kill: locks, temporary and atomic writes, the content-addressed store, the ledger, and which processes are alive.
Nothing here knows what is written.
"""
