"""Figures, the HTML page and metrics.json of one run."""
