"""Membership attacks: by entropy, by shadow models, and their ROC curves.
They need only numpy.
"""
