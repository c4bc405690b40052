"""Verifying: everything that a dossier says and that can be recomputed, is.
`run` asks the checks of the other modules one after the other.
"""
