"""The command line: it reads arguments, calls, and prints. Heavy imports wait until a command needs them.
Nothing imports this package.
"""
