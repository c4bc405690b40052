"""Unlearning: the entanglement of features, the labels, the noise and the methods themselves.
Needs torch and numpy alone.
"""
