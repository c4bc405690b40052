"""Training: one loop for every model that is trained here, with CUDA graphs, checkpoints, several devices and weight files.
Needs only torch and numpy.
"""
