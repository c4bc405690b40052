"""Prefect tasks: one thin module for each stage.
How stages run, what runs leave behind and what only Prefect needs have rooms of their own.
"""
