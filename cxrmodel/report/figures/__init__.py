"""One module a figure; each draws for a theme and returns a matplotlib Figure."""
