"""Prefect's and MLflow's servers and databases: those of the project, and those of a team that the environment names.
Importing this imports neither.
"""
