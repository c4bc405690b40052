"""The perturbing labels: from the transition matrix and the original's answers to the targets that the forget samples are taught.
Needs numpy alone.
"""
