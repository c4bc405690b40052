"""Prefect's and MLflow's servers and databases: the project's own, and a team's servers specified in the environment.
Importing this imports neither.
"""
