"""Unlearning: the entanglement of features, the labels, the noise and the methods themselves.
Needs only torch and numpy.
"""
