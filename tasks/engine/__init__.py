"""What all stages share: their decorator and cache key, Prefect's records, progress, preview."""
