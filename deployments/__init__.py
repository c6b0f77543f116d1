"""Work pools and deployments."""
