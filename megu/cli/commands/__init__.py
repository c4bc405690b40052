"""Commands that have a module of their own.
The command line registers each with one line.
"""
