"""From the bytes of a file to verified pixels."""
