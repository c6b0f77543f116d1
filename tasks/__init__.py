"""Prefect tasks, one module per stage: thin wrappers around the library."""
