"""Prefect tasks: one thin module a stage.
How stages run, what is left behind and what only Prefect needs have rooms of their own.
"""
