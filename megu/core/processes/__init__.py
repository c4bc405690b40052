"""Processes: stopping one, tying the life of one to another, and running git.
Nothing here knows a project.
"""
