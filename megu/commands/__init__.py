"""Commands that have a module of their own; the command line registers each with one line."""
