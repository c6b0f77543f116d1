"""Prefect flows: they read top to bottom."""
