"""Reference statistics, and drift between two sets of scored images."""
