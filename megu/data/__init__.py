"""Data sets on disk, where they come from, what pins them, and which of their samples a request forgets.
Needs nothing but the core.
"""
