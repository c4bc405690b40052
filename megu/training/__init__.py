"""Training: one loop for every model that is trained here, its graphs, checkpoints, several devices and weight files.
Needs torch and numpy alone.
"""
