"""Verification: recompute everything a dossier says that can be recomputed.
`run` calls the checks of the other modules one after the other.
"""
