"""Promotion: moving the champion, what keeps forgotten data from coming back, and what the registry is told.
Only `moves` moves an alias.
"""
