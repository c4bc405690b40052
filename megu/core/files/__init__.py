"""Files that survive a kill: locks, temporary and atomic writes, the content-addressed store, the ledger, and who is alive to own them.
Nothing here knows what is written.
"""
