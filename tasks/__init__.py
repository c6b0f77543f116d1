"""Prefect tasks, one module a stage: thin wrappers around the library."""
