"""The commands, one module for each subject.
Each has a ``register`` function, with which the command line composes them.
"""
