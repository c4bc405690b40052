"""The commands, a module for each subject.
Each has a ``register``, with which the command line composes them.
"""
