"""Honest numbers: metrics, thresholds from validation, baselines, leak checks."""
