"""From a folder or bucket of NIH images to verified pixels and a split by patient."""
