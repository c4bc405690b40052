"""Prefect flows: only wiring."""
