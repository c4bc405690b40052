"""Membership attacks: by entropy, by shadow models, and their curves.
Needs numpy alone.
"""
