"""Processes: how one is stopped, how one ends with another, and git as one.
Nothing here knows a project.
"""
