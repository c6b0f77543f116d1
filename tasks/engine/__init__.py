"""What all stages share: decorator, cache key, Prefect's records, progress, provenance, preview."""
