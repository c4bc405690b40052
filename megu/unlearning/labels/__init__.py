"""The perturbing labels: from the transition matrix and the original's predictions to the training targets of the forget samples.
Needs only numpy.
"""
