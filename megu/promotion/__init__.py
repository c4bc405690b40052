"""Promotion: moving the champion, keeping forgotten data from coming back, and what the registry is told.
Only `moves` moves an alias.
"""
