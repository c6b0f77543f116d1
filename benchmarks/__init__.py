"""How fast the product is beside the notebook's loop, measured side by side."""
