"""Commands that have a file of their own; each is registered by a line in the command line's module."""
